import { describe, expect, test } from "bun:test";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { file_google_protobuf_any } from "@bufbuild/protobuf/wkt";
import { withHandles } from "./compile.ts";
import { lazyDescriptor, lazyFile, lazyService } from "./lazy-descriptors.ts";

const GEN = join(import.meta.dir, "../gen");

/** Every generated descriptor, and of each file what its code gives to `fileDesc`. */
const generated = readdirSync(GEN, { recursive: true, encoding: "utf8" }).filter((name) =>
  name.endsWith("_pb.ts"),
);

async function exportsOf(name: string): Promise<[string, object][]> {
  const module: Record<string, unknown> = await import(join(GEN, name));
  return Object.entries(module).filter((entry): entry is [string, object] => {
    return typeof entry[1] === "object" && entry[1] !== null && "kind" in entry[1];
  });
}

describe("descriptors by handle", () => {
  test("a handle is decoded when it is first read, once, and is then its descriptor", () => {
    let decoded = 0;
    const handle = lazyDescriptor(() => {
      decoded += 1;
      return file_google_protobuf_any;
    }) as typeof file_google_protobuf_any;
    expect(decoded).toBe(0);
    expect(handle.name).toBe("google/protobuf/any");
    expect(handle.messages[0]?.typeName).toBe("google.protobuf.Any");
    expect("nothing" in handle).toBe(false);
    expect(String(handle)).toBe("file google/protobuf/any.proto");
    expect(Object.keys(handle)).toEqual(Object.keys(file_google_protobuf_any));
    expect(decoded).toBe(1);
  });

  test("a property that it lacks is undefined", () => {
    const handle = lazyDescriptor(() => ({ kind: "message" })) as Record<string, unknown>;
    expect(handle["typeName"]).toBeUndefined();
    expect(handle["kind"]).toBe("message");
  });

  test("a service tells its name before its file is decoded", async () => {
    let services = 0;
    for (const name of generated) {
      const source = await Bun.file(join(GEN, name)).text();
      const encoded = /fileDesc\("([^"]+)"/.exec(source)?.[1] ?? "";
      for (const [, desc] of await exportsOf(name)) {
        const { kind, typeName, file } = desc as {
          kind: string;
          typeName: string;
          file: { services: object[] };
        };
        if (kind !== "service") continue;
        services += 1;
        const handle = lazyService(
          lazyFile(encoded, () => file),
          file.services.indexOf(desc),
          () => desc,
        ) as { typeName: string };
        expect(Object.keys(handle)).toEqual(["typeName"]);
        expect(handle.typeName).toBe(typeName);
      }
    }
    expect(services).toBeGreaterThan(15);
  });

  test("messages by handle are written and read as by their descriptor", async () => {
    for (const name of generated) {
      for (const [, desc] of await exportsOf(name)) {
        if ((desc as { kind: string }).kind !== "message") continue;
        const schema = desc as Parameters<typeof create>[0];
        const handle = lazyDescriptor(() => desc) as typeof schema;
        const bytes = toBinary(schema, create(schema));
        expect(toBinary(handle, fromBinary(handle, bytes))).toEqual(bytes);
        expect(create(handle).$typeName).toBe(schema.typeName);
      }
    }
  });

  test("the library's functions are the ones that are replaced", async () => {
    const folder = join(GEN, "../node_modules/@bufbuild/protobuf/dist/esm/codegenv2");
    for (const file of ["boot", "file", "message", "enum", "extension", "service"]) {
      const changed = withHandles(await Bun.file(join(folder, `${file}.js`)).text(), file);
      expect(changed).toMatch(/export function \w+\([^)]*\) \{ return lazy/);
    }
    expect(() => withHandles("export function other() {}", "file")).toThrow("file.js has no");
  });
});
