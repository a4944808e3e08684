/** What a runtime says of itself: its shim's program, called with `-info`. */
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { type Any, AnySchema } from "@bufbuild/protobuf/wkt";
import { RuntimeInfoSchema, RuntimeRequestSchema } from "#gen/containerd/types/introspection_pb.ts";
import { fail, unquoted, within } from "../model/errors.ts";
import { resolveRuntime } from "./runtime-path.ts";
import { askShim } from "./shim-command.ts";
import { checkFeatures, isSpec, parseSpec, usesIdMappedMounts } from "./spec.ts";

/** Answers a packed RuntimeRequest by a RuntimeInfo. @throws Unimplemented of another request, Unknown */
export async function runtimeInfo(request: Any, signal: AbortSignal): Promise<Any> {
  if (request.typeUrl.replace(/^.*\//, "") !== RuntimeRequestSchema.typeName) {
    throw fail("Unimplemented", `unknown request type ${unquoted(request.typeUrl)}`);
  }
  const { runtimePath, options } = fromBinary(RuntimeRequestSchema, request.value);
  const info = await askShim(resolve(runtimePath), options, signal);
  // ctr takes the type's bare name only, as Go's typeurl writes it.
  return create(AnySchema, {
    typeUrl: RuntimeInfoSchema.typeName,
    value: toBinary(RuntimeInfoSchema, info),
  });
}

/** runc ignores what it does not know; a mount whose ids are not shifted would open files to the wrong users. @throws Unknown */
export async function checkRuntime(
  runtime: string,
  spec: Any | undefined,
  options: Any | undefined,
  signal: AbortSignal | undefined,
): Promise<void> {
  if (!isSpec(spec) || !usesIdMappedMounts(parseSpec(spec.value))) return;
  try {
    checkFeatures((await askShim(resolve(runtime), options, signal)).features);
  } catch (error) {
    throw within("failed to validate OCI runtime features", error);
  }
}

/** @throws Unknown as the reference, whose errors have no class here */
function resolve(runtime: string): string {
  try {
    return resolveRuntime(runtime);
  } catch (error) {
    throw within("failed to resolve runtime path", error);
  }
}
