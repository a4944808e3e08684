/**
 * Compiles the daemon to one executable: `bun build/compile.ts OUTFILE REVISION`. Beside what `bun build --compile` does, protobuf
 * descriptors are decoded when they are first used instead of at the start: see `lazy-descriptors.ts`. It is split at each `import()`, so that a
 * command loads its own code only.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
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

/** Parts of the library for which others stand in, by file: the text, and the text instead. */
const REPLACED: Readonly<Record<string, readonly [string, string]>> = {
  "codegenv2/file.js": [
    `const root = fromBinary(FileDescriptorProtoSchema, base64Decode(b64));
    root.messageType.forEach(restoreJsonNames);`,
    `const read = readFileDescriptor(b64);
    const root = read ?? fromBinary(FileDescriptorProtoSchema, base64Decode(b64));
    if (read === undefined) root.messageType.forEach(restoreJsonNames);`,
  ],
  "protobuf/dist/esm/registry.js": [
    "function addFields(message, reg, mapEntries) {",
    `function addFields(message, reg, mapEntries) { lazyMembers(message, (each) => resolved_addFields(each, reg, mapEntries)); }
function resolved_addFields(message, reg, mapEntries) {`,
  ],
};

/** The library's file with its part replaced. @throws Error if it is not there */
export function withReplaced(source: string, path: string): string {
  const [, [part, instead] = ["", ""]] =
    Object.entries(REPLACED).find(([file]) => path.endsWith(`/${file}`)) ?? [];
  if (part === "") return source;
  if (!source.includes(part)) throw new Error(`${path} has no "${part}"`);
  return [
    `import { readFileDescriptor } from ${JSON.stringify(join(import.meta.dir, "file-descriptors.ts"))};`,
    `import { lazyMembers } from ${LAZY};`,
    source.replace(part, () => instead),
  ].join("\n");
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

const lazyDescriptors: BunPlugin = {
  name: "lazy-descriptors",
  setup(build) {
    build.onLoad({ filter: /\/codegenv2\/(?:boot|file|message|enum|extension|service)\.js$/ }, ({ path }) => {
      const file = /([a-z]+)\.js$/.exec(path)?.[1] ?? "";
      return { contents: withHandles(withReplaced(readFileSync(path, "utf8"), path), file), loader: "js" };
    });
    build.onLoad({ filter: /\/protobuf\/dist\/esm\/registry\.js$/ }, ({ path }) => {
      return { contents: withReplaced(readFileSync(path, "utf8"), path), loader: "js" };
    });
  },
};

/** How much later than usual code is compiled to machine code: a command is over before that would pay. `daemon/serve.ts` sets it back. */
const COMMANDS_JIT_POLICY = 20;

/** @throws AggregateError with what the bundler says */
async function compile(outfile: string, revision: string): Promise<void> {
  await Bun.build({
    entrypoints: ["src/main.ts", "src/diff/worker.ts", "src/content/ingest-worker.ts"].map((file) =>
      join(REPOSITORY, file),
    ),
    root: join(REPOSITORY, "src"),
    target: "bun",
    format: "esm",
    splitting: true,
    bytecode: true,
    minify: { syntax: true, whitespace: true, identifiers: false },
    define: { BUNKERD_REVISION: JSON.stringify(revision) },
    plugins: [lazyDescriptors],
    // What lies in the folder where it is started, `bunfig.toml` with its preloads and `.env`, is not the daemon's.
    compile: { outfile, jitPolicy: COMMANDS_JIT_POLICY, autoloadBunfig: false, autoloadDotenv: false },
  });
}

if (import.meta.main) {
  const [outfile, revision = "unknown"] = process.argv.slice(2);
  if (outfile === undefined) throw new Error("usage: bun build/compile.ts OUTFILE [REVISION]");
  await compile(outfile, revision);
}
