import { describe, expect, test } from "bun:test";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { protoCamelCase } from "@bufbuild/protobuf/reflect";
import {
  type DescriptorProto,
  type FileDescriptorProto,
  FileDescriptorProtoSchema,
  file_google_protobuf_any,
} from "@bufbuild/protobuf/wkt";
import { withHandles, withReplaced } from "./compile.ts";
import { readFileDescriptor } from "./file-descriptors.ts";
import { lazyDescriptor, lazyFile, lazyMembers, lazyMessage, lazyService } from "./lazy-descriptors.ts";

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

  test("parts of the library are replaced, and one that is not there is told", async () => {
    const folder = join(GEN, "../node_modules/@bufbuild/protobuf/dist/esm");
    for (const [file, called] of [
      ["codegenv2/file.js", "const read = readFileDescriptor(b64);"],
      ["registry.js", "{ lazyMembers(message,"],
      ["registry.js", "__proto__: lazyMessage,"],
      ["wkt/wrappers.js", "? messageDesc.fields[0] : undefined;"],
      ["../../../../commander/lib/command.js", `getBuiltinModule("node:child_process").spawn`],
      ["../../../../commander/lib/help.js", `getBuiltinModule("node:util").stripVTControlCharacters`],
    ] as const) {
      const path = join(folder, file);
      expect(withReplaced(await Bun.file(path).text(), path)).toContain(called);
      expect(() => withReplaced("", path)).toThrow(`${path} has no`);
    }
    expect(withReplaced("as it is", join(folder, "create.js"))).toBe("as it is");
  });
});

describe("files by hand", () => {
  /** With what unset fields read as, which no comparison looks at. */
  function withDefaults(value: unknown): unknown {
    if (Array.isArray(value)) return value.map(withDefaults);
    if (typeof value !== "object" || value === null) return value;
    const own = Object.entries(value).map(([key, inner]) => [key, withDefaults(inner)] as const);
    return { own: Object.fromEntries(own), defaults: { ...Object.getPrototypeOf(value) } };
  }

  /** The library restores JSON names once it has read a file; here fields have them from the first look on. */
  function withFields(messages: readonly DescriptorProto[]): void {
    for (const { field, nestedType } of messages) {
      for (const each of field) if (each.jsonName === "") each.jsonName = protoCamelCase(each.name);
      withFields(nestedType);
    }
  }

  test("every generated file is read as the library reads it, and written the same", async () => {
    let files = 0;
    for (const name of generated) {
      const encoded = /fileDesc\("([^"]+)"/.exec(await Bun.file(join(GEN, name)).text())?.[1] ?? "";
      const bytes = Buffer.from(encoded, "base64");
      const wanted = fromBinary(FileDescriptorProtoSchema, bytes);
      const read = readFileDescriptor(encoded) as FileDescriptorProto;
      for (const { messageType } of [wanted, read]) withFields(messageType);
      expect(withDefaults(read)).toEqual(withDefaults(wanted));
      expect(toBinary(FileDescriptorProtoSchema, read)).toEqual(toBinary(FileDescriptorProtoSchema, wanted));
      files += 1;
    }
    expect(files).toBeGreaterThan(40);
  });

  test.each([
    ["something that is not known", { publicDependency: [1] }],
    ["something further in", { enumType: [{ name: "E", reservedName: ["e"] }] }],
  ])("%s is the library's", (_name, init) => {
    const bytes = toBinary(FileDescriptorProtoSchema, create(FileDescriptorProtoSchema, init));
    expect(readFileDescriptor(Buffer.from(bytes).toString("base64"))).toBeUndefined();
  });

  test("a message's fields are read at the first look; what is not known of one is the library's", () => {
    const field = [{ name: "first_one", defaultValue: "1" }, { name: "second" }];
    const bytes = toBinary(
      FileDescriptorProtoSchema,
      create(FileDescriptorProtoSchema, { messageType: [{ name: "M", field }, { name: "Empty" }] }),
    );
    const read = readFileDescriptor(Buffer.from(bytes).toString("base64")) as FileDescriptorProto;
    const [message, empty] = read.messageType;
    expect(Object.hasOwn(message ?? {}, "field")).toBe(false);
    expect(message?.field.map(({ defaultValue, jsonName }) => [defaultValue, jsonName])).toEqual([
      ["1", "firstOne"],
      ["", "second"],
    ]);
    expect(message?.field).toBe(message?.field);
    expect(empty?.field).toEqual([]);
  });
});

test("a message's members are put in at the first look, those of messages in it at theirs", () => {
  interface Described {
    readonly fields: string[];
    readonly members: string[];
    readonly nestedMessages: Described[];
  }
  const message = (...nestedMessages: object[]): Described =>
    Object.assign(Object.create(lazyMessage) as object, { nestedMessages }) as Described;
  const inner = message();
  const outer = message(inner);
  const added: object[] = [];
  const add = (each: object): void => {
    added.push(each);
    (each as Described).fields.push("a");
    (each as Described).members.push("b");
    if (each === outer) lazyMembers(inner, add);
  };
  lazyMembers(outer, add);
  const handle = lazyDescriptor(() => outer) as Described;
  expect(handle.nestedMessages).toEqual([inner]);
  expect(added).toEqual([]);
  expect(handle.members).toEqual(["b"]);
  expect(added).toEqual([outer]);
  expect(outer.fields).toEqual(["a"]);
  expect(handle.fields).toBe(outer.fields);
  expect(inner.fields).toEqual(["a"]);
  expect(added).toEqual([outer, inner]);
});
