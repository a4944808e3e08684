/**
 * A `FileDescriptorProto` (`google/protobuf/descriptor.proto`) read without the descriptor of descriptors: what protobuf-es does by reflection, with
 * code that runs once, takes longer than the rest of a command's start. The messages are as the library makes them.
 */

import { fromBinary } from "@bufbuild/protobuf";
import { protoCamelCase } from "@bufbuild/protobuf/reflect";
import { FieldDescriptorProtoSchema } from "@bufbuild/protobuf/wkt";

/** A message's field: a scalar or enum, one message, or a list of them, which may be read when it is looked at. */
type Kind =
  | "string"
  | "number"
  | "boolean"
  | { readonly one: () => Shape }
  | { readonly list: () => Shape }
  | { readonly lazyList: () => Shape };

interface Shape {
  readonly typeName: string;
  /** The prototype of messages: what unset fields read as. */
  readonly defaults: object;
  /** Lists, which messages always have themselves. */
  readonly lists: readonly string[];
  readonly fields: Readonly<Record<number, readonly [name: string, kind: Kind]>>;
}

const VARINT = 0;
const DELIMITED = 2;

const oneof: Shape = {
  typeName: "google.protobuf.OneofDescriptorProto",
  defaults: { name: "" },
  lists: [],
  fields: { 1: ["name", "string"] },
};

const fieldOptions: Shape = {
  typeName: "google.protobuf.FieldOptions",
  defaults: {
    ctype: 0,
    packed: false,
    jstype: 0,
    lazy: false,
    unverifiedLazy: false,
    deprecated: false,
    weak: false,
    debugRedact: false,
    retention: 0,
  },
  lists: ["targets", "editionDefaults", "uninterpretedOption"],
  fields: { 3: ["deprecated", "boolean"], 16: ["debugRedact", "boolean"] },
};

const field: Shape = {
  typeName: "google.protobuf.FieldDescriptorProto",
  defaults: {
    name: "",
    number: 0,
    label: 1,
    type: 1,
    typeName: "",
    extendee: "",
    defaultValue: "",
    oneofIndex: 0,
    jsonName: "",
    proto3Optional: false,
  },
  lists: [],
  fields: {
    1: ["name", "string"],
    3: ["number", "number"],
    4: ["label", "number"],
    5: ["type", "number"],
    6: ["typeName", "string"],
    8: ["options", { one: () => fieldOptions }],
    9: ["oneofIndex", "number"],
    17: ["proto3Optional", "boolean"],
  },
};

const enumValue: Shape = {
  typeName: "google.protobuf.EnumValueDescriptorProto",
  defaults: { name: "", number: 0 },
  lists: [],
  fields: { 1: ["name", "string"], 2: ["number", "number"] },
};

const enumeration: Shape = {
  typeName: "google.protobuf.EnumDescriptorProto",
  defaults: { name: "", visibility: 0 },
  lists: ["value", "reservedRange", "reservedName"],
  fields: { 1: ["name", "string"], 2: ["value", { list: () => enumValue }] },
};

const reservedRange: Shape = {
  typeName: "google.protobuf.DescriptorProto.ReservedRange",
  defaults: { start: 0, end: 0 },
  lists: [],
  fields: { 1: ["start", "number"], 2: ["end", "number"] },
};

const messageOptions: Shape = {
  typeName: "google.protobuf.MessageOptions",
  defaults: {
    messageSetWireFormat: false,
    noStandardDescriptorAccessor: false,
    deprecated: false,
    mapEntry: false,
    deprecatedLegacyJsonFieldConflicts: false,
  },
  lists: ["uninterpretedOption"],
  fields: { 3: ["deprecated", "boolean"], 7: ["mapEntry", "boolean"] },
};

const message: Shape = {
  typeName: "google.protobuf.DescriptorProto",
  defaults: Object.defineProperty({ name: "", visibility: 0 }, "field", {
    get(this: Fields) {
      return readFields(this);
    },
  }),
  lists: [
    ...["extension", "nestedType", "enumType", "extensionRange", "oneofDecl"],
    ...["reservedRange", "reservedName"],
  ],
  fields: {
    1: ["name", "string"],
    2: ["field", { lazyList: () => field }],
    3: ["nestedType", { list: () => message }],
    4: ["enumType", { list: () => enumeration }],
    7: ["options", { one: () => messageOptions }],
    8: ["oneofDecl", { list: () => oneof }],
    9: ["reservedRange", { list: () => reservedRange }],
  },
};

const methodOptions: Shape = {
  typeName: "google.protobuf.MethodOptions",
  defaults: { deprecated: false, idempotencyLevel: 0 },
  lists: ["uninterpretedOption"],
  fields: { 33: ["deprecated", "boolean"], 34: ["idempotencyLevel", "number"] },
};

const method: Shape = {
  typeName: "google.protobuf.MethodDescriptorProto",
  defaults: { name: "", inputType: "", outputType: "", clientStreaming: false, serverStreaming: false },
  lists: [],
  fields: {
    1: ["name", "string"],
    2: ["inputType", "string"],
    3: ["outputType", "string"],
    4: ["options", { one: () => methodOptions }],
    5: ["clientStreaming", "boolean"],
    6: ["serverStreaming", "boolean"],
  },
};

const service: Shape = {
  typeName: "google.protobuf.ServiceDescriptorProto",
  defaults: { name: "" },
  lists: ["method"],
  fields: { 1: ["name", "string"], 2: ["method", { list: () => method }] },
};

const fileOptions: Shape = {
  typeName: "google.protobuf.FileOptions",
  defaults: {
    javaPackage: "",
    javaOuterClassname: "",
    javaMultipleFiles: false,
    javaGenerateEqualsAndHash: false,
    javaStringCheckUtf8: false,
    optimizeFor: 1,
    goPackage: "",
    ccGenericServices: false,
    javaGenericServices: false,
    pyGenericServices: false,
    deprecated: false,
    ccEnableArenas: true,
    objcClassPrefix: "",
    csharpNamespace: "",
    swiftPrefix: "",
    phpClassPrefix: "",
    phpNamespace: "",
    phpMetadataNamespace: "",
    rubyPackage: "",
  },
  lists: ["uninterpretedOption"],
  fields: { 11: ["goPackage", "string"], 23: ["deprecated", "boolean"] },
};

const file: Shape = {
  typeName: "google.protobuf.FileDescriptorProto",
  defaults: { name: "", package: "", syntax: "", edition: 0 },
  lists: [
    ...["dependency", "publicDependency", "weakDependency", "optionDependency"],
    ...["messageType", "enumType", "service", "extension"],
  ],
  fields: {
    1: ["name", "string"],
    2: ["package", "string"],
    4: ["messageType", { list: () => message }],
    5: ["enumType", { list: () => enumeration }],
    6: ["service", { list: () => service }],
    8: ["options", { one: () => fileOptions }],
    12: ["syntax", "string"],
  },
};

/** Where the fields of messages lie that nobody has looked at; of a file's messages a program uses few. */
const unread = new WeakMap<object, { readonly bytes: Buffer; readonly places: readonly number[] }>();

/** The fields of a message, from the first look on its own, with their JSON names; one with something that is not known here is read by the library. */
function readFields(message: Fields): object[] {
  const { bytes, places } = unread.get(message) ?? { bytes: Buffer.alloc(0), places: [] };
  const fields: object[] = [];
  for (let index = 0; index < places.length; index += 2) {
    const [from = 0, end = 0] = places.slice(index, index + 2);
    const read =
      new Reader(bytes, from).message(field, end) ??
      (fromBinary(FieldDescriptorProtoSchema, bytes.subarray(from, end)) as Fields);
    if (!Object.hasOwn(read, "jsonName")) read["jsonName"] = protoCamelCase(String(read["name"]));
    fields.push(read);
  }
  Object.defineProperty(message, "field", {
    configurable: true,
    enumerable: true,
    writable: true,
    value: fields,
  });
  return fields;
}

/** Undefined if it has something that is not known here, but for its messages' fields: the library reads such a file. */
export function readFileDescriptor(encoded: string): object | undefined {
  const bytes = Buffer.from(encoded, "base64");
  return new Reader(bytes).message(file, bytes.length);
}

type Fields = Record<string, unknown>;

class Reader {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(bytes: Buffer, at = 0) {
    this.#bytes = bytes;
    this.#at = at;
  }

  message({ typeName, defaults, lists, fields }: Shape, end: number): Fields | undefined {
    const made = Object.create(defaults) as Fields;
    made["$typeName"] = typeName;
    for (const list of lists) made[list] = [];
    let places: number[] | undefined;
    while (this.#at < end) {
      const tag = this.#varint();
      const known = fields[tag >>> 3];
      if (known === undefined) return undefined;
      const [name, kind] = known;
      const wanted = kind === "number" || kind === "boolean" ? VARINT : DELIMITED;
      if ((tag & 7) !== wanted) return undefined;
      const number = this.#varint();
      if (kind === "number") made[name] = number;
      else if (kind === "boolean") made[name] = number !== 0;
      else if (kind === "string") made[name] = this.#text(number);
      else if ("lazyList" in kind) {
        places ??= [];
        places.push(this.#at, this.#at + number);
        this.#at += number;
      } else {
        const inner = this.message(("one" in kind ? kind.one : kind.list)(), this.#at + number);
        if (inner === undefined) return undefined;
        if ("one" in kind) made[name] = inner;
        else (made[name] as object[]).push(inner);
      }
    }
    if (places !== undefined) unread.set(made, { bytes: this.#bytes, places });
    return made;
  }

  /** An int32: no tag and no length is longer, a negative number has its sign in further bytes. */
  #varint(): number {
    let value = 0;
    for (let shift = 0; shift < 70; shift += 7) {
      const byte = this.#bytes[this.#at++] ?? 0;
      if (shift < 32) value |= (byte & 0x7f) << shift;
      if (byte < 0x80) break;
    }
    return value;
  }

  #text(length: number): string {
    const from = this.#at;
    this.#at = from + length;
    return this.#bytes.toString("utf8", from, this.#at);
  }
}
