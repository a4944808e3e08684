/** What requests and containers carry for the runtime: runc's options, and those of checkpoints. */
import { fromBinary } from "@bufbuild/protobuf";
import type { Any } from "@bufbuild/protobuf/wkt";
import { CheckpointOptionsSchema, type Options, OptionsSchema } from "#gen/containerd/runc/v1/options_pb.ts";
import type { Container } from "#gen/containerd/services/containers/v1/containers_pb.ts";
import { BunkerdError, fail, messageOf, unquoted } from "../model/errors.ts";

/** Runc's options of a create; undefined without any. @throws Unknown of another type, InvalidArgument */
export function createOptions({ runtime }: Container, options: Any | undefined): Options | undefined {
  if (options === undefined) return undefined;
  if (typeName(options) !== OptionsSchema.typeName) {
    throw new BunkerdError("Unknown", `invalid task create option for ${runtime?.name ?? ""}`);
  }
  return decoded(options, () => fromBinary(OptionsSchema, options.value));
}

/** The folder that a checkpoint is to be written to; empty for none. @throws Unknown, InvalidArgument */
export function checkpointImagePath({ runtime }: Container, options: Any | undefined): string {
  if (options === undefined) return "";
  if (typeName(options) !== CheckpointOptionsSchema.typeName) {
    throw new BunkerdError("Unknown", `invalid task checkpoint option for ${runtime?.name ?? ""}`);
  }
  return decoded(options, () => fromBinary(CheckpointOptionsSchema, options.value)).imagePath;
}

function typeName(any: Any): string {
  return any.typeUrl.replace(/^.*\//, "");
}

/** @throws InvalidArgument */
function decoded<T>({ typeUrl }: Any, decode: () => T): T {
  try {
    return decode();
  } catch (error) {
    throw fail("InvalidArgument", `options ${unquoted(typeUrl)}: ${messageOf(error)}`, { cause: error });
  }
}
