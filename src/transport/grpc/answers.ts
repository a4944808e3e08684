import { create, toBinary } from "@bufbuild/protobuf";
import { base64Encode } from "@bufbuild/protobuf/wire";
import { StatusSchema } from "#gen/google/rpc/status_pb.ts";
import type { Status } from "../status.ts";
import { ACCEPT_ENCODING } from "./compression.ts";
import { encodeStatusMessage } from "./percent.ts";
import type { HeaderList } from "./stream.ts";

/** Header and trailer lists of answers. The constant ones keep their identity, so that an engine encodes them once. */

export const RESPONSE_HEADERS: HeaderList = [["content-type", "application/grpc"]];

export const GZIP_RESPONSE_HEADERS: HeaderList = [
  ["content-type", "application/grpc"],
  ["grpc-encoding", "gzip"],
];

export const OK_TRAILERS: HeaderList = [["grpc-status", "0"]];

/** Clients commonly refuse header lists of more than 16 KiB (`node:http2`) or 8 KiB (proxies). */
const MAX_STATUS_MESSAGE_BYTES = 8 << 10;
const MAX_DETAILS_BYTES = 8 << 10;

/** `base` and what a handler set, if it set anything. */
export function withHeaders(base: HeaderList, set: Headers | undefined): HeaderList {
  if (set === undefined) return base;
  const extra = [...set.entries()].map(([name, value]) => [name, value] as const);
  return extra.length === 0 ? base : [...base, ...extra];
}

/** Trailers of a failed call: `grpc-status`, `grpc-message` and, if there are details, `grpc-status-details-bin`. */
export function statusTrailers(status: Status, set: Headers | undefined): HeaderList {
  const trailers: (readonly [string, string])[] = [["grpc-status", String(status.code)]];
  if (status.message !== "") {
    trailers.push(["grpc-message", encodeStatusMessage(status.message, MAX_STATUS_MESSAGE_BYTES)]);
  }
  if (status.details.length > 0) {
    const { code, message, details } = status;
    const encoded = toBinary(StatusSchema, create(StatusSchema, { code, message, details: [...details] }));
    if (encoded.length <= MAX_DETAILS_BYTES) {
      trailers.push(["grpc-status-details-bin", base64Encode(encoded, "std_raw")]);
    }
  }
  for (const headers of [status.metadata, set]) trailers.push(...withHeaders([], headers));
  return trailers;
}

/** The whole answer of a request that is refused before a method sees it, in words of HTTP and of gRPC. */
export function refusal(httpStatus: number, status: Status, extra: HeaderList = []): HeaderList {
  return [
    [":status", String(httpStatus)],
    ...RESPONSE_HEADERS,
    ...statusTrailers(status, undefined),
    ...extra,
  ];
}

export const UNKNOWN_ENCODING: HeaderList = [["grpc-accept-encoding", ACCEPT_ENCODING]];
