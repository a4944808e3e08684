/** The house's rules that a compiler does not know: the layer table of the design, sizes, dead files, where ffi may stand. */
import { describe, expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, normalize, relative } from "node:path";

const root = join(import.meta.dir, "..");

/** Room to layer. A room may import lower layers and itself. */
const LAYERS: Readonly<Record<string, number>> = {
  "main.ts": 6,
  cli: 6,
  daemon: 5,
  services: 4,
  cri: 4,
  pod: 4,
  http: 4,
  runtime: 3,
  transfer: 3,
  cni: 3,
  nri: 3,
  metadata: 2,
  content: 2,
  snapshots: 2,
  diff: 2,
  mounts: 2,
  registry: 2,
  events: 2,
  client: 2,
  transport: 1,
  bolt: 1,
  config: 1,
  model: 0,
  lib: 0,
  linux: 0,
};

/** Imports that break the table, each with its reason. */
const EXCEPTIONS: Readonly<Record<string, string>> = {
  "src/main.ts -> src/cli": "argv's two halves share layer 6",
  "src/lib/program.ts -> src/linux": "what a program gets on stdin is a file in memory",
};

/**
 * What the modules of a start may load besides each other. Anything else costs every start: load it by `await import()` or
 * `process.getBuiltinModule()` where it is first used. (Generated code is cheap: `build/lazy-descriptors.ts`.)
 */
const LOADED_AT_START: ReadonlySet<string> = new Set([
  "@bufbuild/protobuf",
  "@bufbuild/protobuf/reflect",
  "@bufbuild/protobuf/wire",
  "@bufbuild/protobuf/wkt",
  "@connectrpc/connect",
  "bun:ffi",
  "commander",
  "node:crypto",
  "node:fs",
  "node:fs/promises",
  "node:net",
  "node:os",
  "node:path",
  "node:util",
  "smol-toml",
]);

const MAX_FUNCTION_LINES = 70;
const MAX_FILE_LINES = 600;

function filesBelow(folder: string): string[] {
  return readdirSync(join(root, folder), { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".ts"))
    .map((name) => join(folder, name))
    .sort();
}

const sources = filesBelow("src");
const product = sources.filter((file) => !file.endsWith(".test.ts"));
const textOf = (file: string): string => readFileSync(join(root, file), "utf8");

function importsOf(file: string): string[] {
  const found = textOf(file).matchAll(
    /(?:\bfrom\s+|\bimport\s*\(\s*|\bimport\s+|new URL\(\s*)["']([^"']+)["']/g,
  );
  return [...found].map((match) => match[1] ?? "");
}

function localImportsOf(file: string): string[] {
  return importsOf(file)
    .filter((name) => name.startsWith("."))
    .map((name) => relative(root, normalize(join(root, dirname(file), name))));
}

/** Names that a file's statements import or re-export as values when it is loaded: not by `import()`, not as types. */
function loadedBy(file: string): string[] {
  const statements = textOf(file).matchAll(
    /^(?:import|export)\s+(?!type\b)(?:([^"';]*?)\s+from\s+)?["']([^"']+)["']/gm,
  );
  return [...statements]
    .filter(([, names]) => names === undefined || !/^\{(?:\s*type \w+(?: as \w+)?,?)+\s*\}$/.test(names))
    .map(([, , name]) => name ?? "");
}

function roomOf(file: string): string {
  return file.split("/")[1] ?? "";
}

/** Every function's first line and length, by the indentation that the formatter guarantees. */
function functionsOf(file: string): { line: number; lines: number }[] {
  const lines = textOf(file).split("\n");
  const opens =
    /^(\s*)(?:export |async |static |private |public |protected |override |get |set |function|const \w+ = (?:async )?\(|#?\w+\().*\{$/;
  const found: { line: number; lines: number }[] = [];
  lines.forEach((line, index) => {
    const match = opens.exec(line);
    if (
      match === null ||
      /^\s*(?:if|for|while|switch|catch|describe|export (?:class|interface|type|const enum))\b/.test(line)
    )
      return;
    if (/\b(?:class|interface)\b/.test(line)) return;
    const end = lines.findIndex((other, at) => at > index && other.startsWith(`${match[1]}}`));
    if (end > index) found.push({ line: index + 1, lines: end - index + 1 });
  });
  return found;
}

describe("tidy", () => {
  test("every room stands in the layer table", () => {
    const rooms = new Set(sources.map(roomOf));
    expect([...rooms].filter((room) => !(room in LAYERS))).toEqual([]);
  });

  test("imports go down the layers", () => {
    const wrong: string[] = [];
    for (const file of product) {
      for (const target of localImportsOf(file)) {
        const [from, to] = [roomOf(file), roomOf(target)];
        if (!target.startsWith("src/") || from === to) continue;
        if (`${file} -> src/${to}` in EXCEPTIONS) continue;
        if ((LAYERS[to] ?? 99) >= (LAYERS[from] ?? -1)) wrong.push(`${file} imports ${target}`);
      }
    }
    expect(wrong).toEqual([]);
  });

  test("files load each other in one direction", () => {
    const seen = new Set<string>();
    const wrong: string[] = [];
    const visit = (file: string, above: readonly string[]): void => {
      if (above.includes(file)) wrong.push([...above.slice(above.indexOf(file)), file].join(" loads "));
      if (above.includes(file) || seen.has(file) || !product.includes(file)) return;
      seen.add(file);
      for (const name of loadedBy(file))
        if (name.startsWith(".")) visit(normalize(join(dirname(file), name)), [...above, file]);
    };
    for (const file of product) visit(file, []);
    expect(wrong).toEqual([]);
  });

  test("only linux/ calls libc", () => {
    const wrong = product.filter((file) => roomOf(file) !== "linux" && importsOf(file).includes("bun:ffi"));
    expect(wrong).toEqual([]);
  });

  test("product code imports neither tests nor default-exports", () => {
    const wrong = product.filter(
      (file) =>
        localImportsOf(file).some((name) => !name.startsWith("src/")) ||
        /^export default/m.test(textOf(file)),
    );
    expect(wrong).toEqual([]);
  });

  test("nothing writes to the console by itself", () => {
    expect(product.filter((file) => /\bconsole\.\w+\(/.test(textOf(file)))).toEqual([]);
  });

  test("no file is longer than it can be read", () => {
    const long = product.filter((file) => textOf(file).split("\n").length > MAX_FILE_LINES);
    expect(long).toEqual([]);
  });

  test("no function is longer than a screen", () => {
    const long = product.flatMap((file) =>
      functionsOf(file)
        .filter((found) => found.lines > MAX_FUNCTION_LINES)
        .map((found) => `${file}:${found.line} (${found.lines} lines)`),
    );
    expect(long).toEqual([]);
  });

  test("a start loads nothing that a first call does not need", () => {
    const reached = new Set<string>();
    const wrong: string[] = [];
    const queue = ["src/main.ts", "src/cli/serve.ts"];
    for (let file = queue.pop(); file !== undefined; file = queue.pop()) {
      if (reached.has(file)) continue;
      reached.add(file);
      for (const name of loadedBy(file)) {
        if (name.startsWith(".")) queue.push(normalize(join(dirname(file), name)));
        else if (!name.startsWith("#gen/") && !LOADED_AT_START.has(name)) wrong.push(`${file} loads ${name}`);
      }
    }
    expect(reached.size).toBeGreaterThan(200);
    expect(wrong).toEqual([]);
  });

  test("every file is reached from an entry point", () => {
    const manifest = JSON.parse(textOf("package.json")) as { exports: Record<string, string> };
    const entries = ["src/main.ts", ...Object.values(manifest.exports).map((path) => normalize(path))];
    const reached = new Set<string>();
    const queue = [...entries];
    for (let file = queue.pop(); file !== undefined; file = queue.pop()) {
      if (reached.has(file) || !product.includes(file)) continue;
      reached.add(file);
      queue.push(...localImportsOf(file));
    }
    expect(product.filter((file) => !reached.has(file))).toEqual([]);
  });
});
