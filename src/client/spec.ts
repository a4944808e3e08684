import { create } from "@bufbuild/protobuf";
import { type Any, AnySchema } from "@bufbuild/protobuf/wkt";
import { fail } from "../model/errors.ts";

/** The type url of an OCI runtime spec of version 1 (containerd `core/runtime/typeurl.go`). Its payload is JSON. */
export const SPEC_TYPE_URL = "types.containerd.io/opencontainers/runtime-spec/1/Spec";

const decoder = new TextDecoder("utf-8", { fatal: true });
const encoder = new TextEncoder();

declare global {
  interface JSON {
    /** ECMAScript proposal JSON.parse source text access: text that stringify writes as it is. */
    rawJSON(text: string): object;
  }
}

/** An OCI spec as containerd stores it. A bigint is written as an integer: rlimits go up to 2^64 - 1. */
export function packSpec(spec: object): Any {
  return create(AnySchema, { typeUrl: SPEC_TYPE_URL, value: encoder.encode(textOf(spec)) });
}

/** To look at each value costs ten times the writing. */
function textOf(spec: object): string {
  try {
    return JSON.stringify(spec);
  } catch {
    // A bigint; a circle fails again.
    return JSON.stringify(spec, (_, value: unknown) =>
      typeof value === "bigint" ? JSON.rawJSON(value.toString()) : value,
    );
  }
}

/**
 * The OCI spec inside; integers that a number cannot hold exactly come as bigint.
 * @throws InvalidArgument if it is not an OCI spec in JSON
 */
export function unpackSpec(spec: Any): unknown {
  if (spec.typeUrl !== SPEC_TYPE_URL) {
    throw fail("InvalidArgument", `spec of type ${spec.typeUrl} is no OCI runtime spec`);
  }
  try {
    return parseExact(decoder.decode(spec.value));
  } catch (error) {
    throw fail("InvalidArgument", `OCI runtime spec is no JSON: ${String(error)}`, { cause: error });
  }
}

/** As many digits as the first integer has that a number cannot hold exactly. */
const LONG_NUMBER = /\d{16}/;

/**
 * JSON whose integers stay exact: what a number cannot hold comes as bigint. Text without such a number is read several times faster.
 * @throws SyntaxError
 */
export function parseExact(text: string): unknown {
  return LONG_NUMBER.test(text) ? JSON.parse(text, exactInteger) : JSON.parse(text);
}

function exactInteger(_key: string, value: unknown, context?: { source?: string }): unknown {
  if (typeof value !== "number" || Number.isSafeInteger(value)) return value;
  return context?.source !== undefined && /^-?\d+$/.test(context.source) ? BigInt(context.source) : value;
}
