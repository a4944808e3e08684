import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { StatusSchema } from "#gen/google/rpc/status_pb.ts";
import { type KeyValue, KeyValueSchema, RequestSchema, ResponseSchema } from "#gen/ttrpc/request_pb.ts";
import { messageOf } from "../../model/errors.ts";
import { type Status, statusError } from "../status.ts";
import { MAX_MESSAGE_BYTES } from "./frames.ts";

/** What a request frame holds. */
export interface Call {
  readonly service: string;
  readonly method: string;
  readonly payload: Uint8Array;
  /** Until the caller's deadline; undefined for none. */
  readonly timeoutMs: number | undefined;
  readonly metadata: readonly (readonly [name: string, value: string])[];
}

const NANOSECONDS_PER_MILLISECOND = 1_000_000;
/** Beyond it a deadline is none: an int64 of nanoseconds is 292 years. */
const MAX_TIMEOUT_MS = 2 ** 53;

export function encodeCall({ service, method, payload, timeoutMs, metadata }: Call): Uint8Array {
  const request = create(RequestSchema, { service, method, payload });
  if (timeoutMs !== undefined && timeoutMs < MAX_TIMEOUT_MS / NANOSECONDS_PER_MILLISECOND) {
    request.timeoutNano = BigInt(Math.max(1, Math.round(timeoutMs * NANOSECONDS_PER_MILLISECOND)));
  }
  request.metadata = metadata.map(([key, value]): KeyValue => create(KeyValueSchema, { key, value }));
  return toBinary(RequestSchema, request);
}

/** @throws Error that says what is malformed */
export function decodeCall(bytes: Uint8Array): Call {
  const { service, method, payload, timeoutNano, metadata } = fromBinary(RequestSchema, bytes);
  const timeoutMs = timeoutNano === 0n ? undefined : Number(timeoutNano) / NANOSECONDS_PER_MILLISECOND;
  return { service, method, payload, timeoutMs, metadata: metadata.map(({ key, value }) => [key, value]) };
}

export function encodeAnswer(payload: Uint8Array): Uint8Array {
  return toBinary(ResponseSchema, create(ResponseSchema, { payload }));
}

export function encodeFailure({ code, message, details }: Status): Uint8Array {
  const status = create(StatusSchema, { code, message, details: [...details] });
  return toBinary(ResponseSchema, create(ResponseSchema, { status }));
}

/** The payload of an answer. @throws ConnectError: the status that the server answered; Internal if malformed */
export function decodeAnswer(bytes: Uint8Array): Uint8Array {
  const { status, payload } = decoded(() => fromBinary(ResponseSchema, bytes));
  if (status !== undefined && status.code !== 0) throw statusError(status);
  return payload;
}

/** Runs a decoder of what a server sent. @throws ConnectError Internal, worded as the reference's `protoUnmarshal` */
export function decoded<T>(decode: () => T): T {
  try {
    return decode();
  } catch (error) {
    const message = `ttrpc: error unmarshalling payload: ${messageOf(error)}`;
    throw new ConnectError(message, Code.Internal, undefined, undefined, error);
  }
}

/** What either side says of a message that is too long: `ttrpc/errors.go`, `OversizedMessageError`. */
export function oversizedMessage(sizeBytes: number): string {
  return `message length ${sizeBytes} exceed maximum message size of ${MAX_MESSAGE_BYTES}`;
}

/** A frame of a type that has no place on its stream: the reference's `client.go`. */
export function unexpectedFrame(type: number): ConnectError {
  return new ConnectError(`unexpected message type ${type} received: protocol error`, Code.Internal);
}
