/**
 * Compiles the daemon to one executable: `bun build/compile.ts OUTFILE REVISION`. Beside what `bun build --compile` does, protobuf
 * descriptors are decoded when they are first used instead of at the start: see `lazy-descriptors.ts`. It is split at each `import()`, so that a
 * command loads its own code only, and some of what libraries load is left for later.
 */
import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import type { BunPlugin } from "bun";

const REPOSITORY = join(import.meta.dir, "..");
const LAZY = JSON.stringify(join(import.meta.dir, "lazy-descriptors.ts"));

/** What generated code calls (protobuf-es `codegenv2/`), by file: the function, its parameters, and the handle instead. */
const HYDRATORS: Readonly<Record<string, { name: string; parameters: string; handle: string }>> = {
  boot: { name: "boot", parameters: "boot", handle: "lazyDescriptor(" },
  file: { name: "fileDesc", parameters: "b64, imports", handle: "lazyFile(b64, " },
  message: { name: "messageDesc", parameters: "file, path, ...paths", handle: "lazyDescriptor(" },
  enum: { name: "enumDesc", parameters: "file, path, ...paths", handle: "lazyDescriptor(" },
  extension: { name: "extDesc", parameters: "file, path, ...paths", handle: "lazyDescriptor(" },
  service: { name: "serviceDesc", parameters: "file, path, ...paths", handle: "lazyService(file, path, " },
};

/** The import of what stands in for parts of protobuf-es. */
const STAND_INS = [
  `import { readFileDescriptor } from ${JSON.stringify(join(import.meta.dir, "file-descriptors.ts"))};`,
  `import { lazyMembers, lazyMessage } from ${LAZY};`,
].join("\n");

/** A runtime's module that is loaded when it is first called. */
const later = (module: string, called: string): string =>
  `(...args) => globalThis.process.getBuiltinModule("node:${module}").${called}(...args)`;

const STRIP = [
  "import { stripVTControlCharacters } from 'node:util';",
  `const stripVTControlCharacters = ${later("util", "stripVTControlCharacters")};`,
] as const;

/** Parts of libraries for which others stand in, by file: the text, and the text instead. */
const REPLACED: Readonly<Record<string, readonly (readonly [string, string])[]>> = {
  "codegenv2/file.js": [
    [
      `const root = fromBinary(FileDescriptorProtoSchema, base64Decode(b64));
    root.messageType.forEach(restoreJsonNames);`,
      `const read = readFileDescriptor(b64);
    const root = read ?? fromBinary(FileDescriptorProtoSchema, base64Decode(b64));
    if (read === undefined) root.messageType.forEach(restoreJsonNames);`,
    ],
    ["export function fileDesc", `${STAND_INS}\nexport function fileDesc`],
  ],
  "protobuf/dist/esm/registry.js": [
    [
      "function addFields(message, reg, mapEntries) {",
      `${STAND_INS}
function addFields(message, reg, mapEntries) { lazyMembers(message, (each) => resolved_addFields(each, reg, mapEntries)); }
function resolved_addFields(message, reg, mapEntries) {`,
    ],
    [
      `        fields: [],
        field: {},
        oneofs: [],
        members: [],
        nestedEnums: [],`,
      `        __proto__: lazyMessage,
        nestedEnums: [],`,
    ],
  ],
  // Each message that another may hold is asked, which would put in its members.
  "wkt/wrappers.js": [
    [
      "const f = messageDesc.fields[0];",
      "const f = isWrapperTypeName(messageDesc.typeName) ? messageDesc.fields[0] : undefined;",
    ],
  ],
  // A command hardly ever needs these, and each takes its time.
  "commander/lib/command.js": [
    STRIP,
    [
      "import childProcess from 'node:child_process';",
      `const childProcess = { spawn: ${later("child_process", "spawn")} };`,
    ],
  ],
  "commander/lib/help.js": [STRIP],
};

/** The library's file with its parts replaced. @throws Error if one is not there */
export function withReplaced(source: string, path: string): string {
  const [, parts = []] = Object.entries(REPLACED).find(([file]) => path.endsWith(`/${file}`)) ?? [];
  return parts.reduce((text, [part, instead]) => {
    if (!text.includes(part)) throw new Error(`${path} has no "${part}"`);
    return text.replace(part, () => instead);
  }, source);
}

/** The library's file with its function renamed, and one of the old name that answers a handle. @throws Error if it is not there */
export function withHandles(source: string, file: string): string {
  const hydrator = HYDRATORS[file];
  const head = `export function ${hydrator?.name}(${hydrator?.parameters}) {`;
  if (hydrator === undefined || !source.includes(head)) throw new Error(`${file}.js has no "${head}"`);
  const { name, parameters, handle } = hydrator;
  return [
    `import { lazyDescriptor, lazyFile, lazyService } from ${LAZY};`,
    source.replace(head, `function resolved_${name}(${parameters}) {`),
    `export function ${name}(${parameters}) { return ${handle}() => resolved_${name}(${parameters})); }`,
  ].join("\n");
}

const startsLater: BunPlugin = {
  name: "starts-later",
  setup(build) {
    build.onLoad({ filter: /\/codegenv2\/(?:boot|file|message|enum|extension|service)\.js$/ }, ({ path }) => {
      const file = /([a-z]+)\.js$/.exec(path)?.[1] ?? "";
      return { contents: withHandles(withReplaced(readFileSync(path, "utf8"), path), file), loader: "js" };
    });
    build.onLoad(
      { filter: /\/(?:esm\/registry|esm\/wkt\/wrappers|commander\/lib\/(?:command|help))\.js$/ },
      ({ path }) => {
        return { contents: withReplaced(readFileSync(path, "utf8"), path), loader: "js" };
      },
    );
  },
};

/** How much later than usual code is compiled to machine code: a command is over before that would pay. `cli/cli.ts` and `daemon/serve.ts` set it back. */
const COMMANDS_JIT_POLICY = 20;

const ENTRYPOINTS = ["src/main.ts", "src/diff/worker.ts", "src/content/ingest-worker.ts"];

/** @param entrypoints in the repository: the program, and threads that it starts. @throws AggregateError with what the bundler says */
export async function compile(
  outfile: string,
  revision: string,
  entrypoints: readonly string[] = ENTRYPOINTS,
): Promise<void> {
  await Bun.build({
    entrypoints: entrypoints.map((file) => join(REPOSITORY, file)),
    root: join(REPOSITORY, dirname(entrypoints[0] ?? "")),
    target: "bun",
    format: "esm",
    splitting: true,
    bytecode: true,
    minify: { syntax: true, whitespace: true, identifiers: false },
    define: { BUNKERD_REVISION: JSON.stringify(revision) },
    plugins: [startsLater],
    // What lies in the folder where it is started, `bunfig.toml` with its preloads and `.env`, is not the daemon's.
    compile: { outfile, jitPolicy: COMMANDS_JIT_POLICY, autoloadBunfig: false, autoloadDotenv: false },
  });
}

if (import.meta.main) {
  const [outfile, revision = "unknown"] = process.argv.slice(2);
  if (outfile === undefined) throw new Error("usage: bun build/compile.ts OUTFILE [REVISION]");
  await compile(outfile, revision);
}
