import { create, type DescMessage, type MessageShape } from "@bufbuild/protobuf";
import { type Any, anyPack } from "@bufbuild/protobuf/wkt";
import { stringify, type TomlTable } from "smol-toml";
import { OptionsSchema as RuncOptionsSchema } from "#gen/containerd/runc/v1/options_pb.ts";
import { OptionsSchema } from "#gen/runtimeoptions/v1/options_pb.ts";
import { BunkerdError, quote } from "../../model/errors.ts";
import type { RuntimeSettings } from "./settings.ts";

const RUNC = "io.containerd.runc.v2";

type Settings = Pick<RuntimeSettings, "runtime_type" | "options">;
type Table = Readonly<Record<string, unknown>>;

/**
 * A handler's `options` for its shim: runc's as their own message, any other runtime's as they stand in TOML unless they name a
 * file (`ConfigPath`). Undefined if there are none. @throws InvalidArgument for an option of the wrong type
 */
export function runtimeOptions({ runtime_type, options }: Settings): Any | undefined {
  const table = options as Table;
  if (Object.keys(table).length === 0) return undefined;
  return runtime_type === RUNC ? runcOptions(table) : otherOptions(table);
}

/** Keys are matched as go-toml does, whatever their case; unknown ones are passed over. */
function runcOptions(table: Table): Any {
  const read = reader(table);
  const options = create(RuncOptionsSchema, {
    noPivotRoot: read("NoPivotRoot", "boolean", false),
    noNewKeyring: read("NoNewKeyring", "boolean", false),
    shimCgroup: read("ShimCgroup", "string", ""),
    ioUid: read("IoUid", "number", 0),
    ioGid: read("IoGid", "number", 0),
    binaryName: read("BinaryName", "string", ""),
    root: read("Root", "string", ""),
    systemdCgroup: read("SystemdCgroup", "boolean", false),
    criuImagePath: read("CriuImagePath", "string", ""),
    criuWorkPath: read("CriuWorkPath", "string", ""),
    taskApiAddress: read("TaskApiAddress", "string", ""),
    taskApiVersion: read("TaskApiVersion", "number", 0),
  });
  return pack(RuncOptionsSchema, options);
}

function otherOptions(table: Table): Any {
  const read = reader(table);
  const options = create(OptionsSchema, {
    typeUrl: read("TypeUrl", "string", ""),
    configPath: read("ConfigPath", "string", ""),
  });
  if (options.configPath === "") options.configBody = Buffer.from(stringify(table as TomlTable));
  return pack(OptionsSchema, options);
}

/** containerd's own type urls have no host (`typeurl`). */
function pack<Desc extends DescMessage>(schema: Desc, message: MessageShape<Desc>): Any {
  const packed = anyPack(schema, message);
  packed.typeUrl = schema.typeName;
  return packed;
}

interface Kinds {
  readonly string: string;
  readonly boolean: boolean;
  readonly number: number;
}

function reader(table: Table) {
  const values = new Map(Object.entries(table).map(([key, value]) => [key.toLowerCase(), value]));
  return <K extends keyof Kinds>(key: string, kind: K, byDefault: Kinds[K]): Kinds[K] => {
    const value = values.get(key.toLowerCase());
    if (value === undefined) return byDefault;
    const read = typeof value === "bigint" ? Number(value) : value;
    if (typeof read === kind) return read as Kinds[K];
    throw new BunkerdError("InvalidArgument", `runtime option ${quote(key)} is no ${kind}`);
  };
}
