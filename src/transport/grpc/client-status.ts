/** What an answer's header and trailer fields say of a call: gRPC's PROTOCOL-HTTP2.md, "Responses". */
import { fromBinary } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { StatusSchema } from "#gen/google/rpc/status_pb.ts";
import { messageOf } from "../../model/errors.ts";
import { ErrorCode, errorCodeName } from "../http2/errors.ts";
import { statusError } from "../status.ts";
import { isGrpc } from "./content-type.ts";

export type AnswerFields = readonly { readonly name: string; readonly value: string }[];

/** Of an answer that is no gRPC: gRPC's http-grpc-status-mapping.md. */
const HTTP_CODES: Readonly<Record<string, Code>> = {
  "400": Code.Internal,
  "401": Code.Unauthenticated,
  "403": Code.PermissionDenied,
  "404": Code.Unimplemented,
  "429": Code.Unavailable,
  "502": Code.Unavailable,
  "503": Code.Unavailable,
  "504": Code.Unavailable,
};

/** RST_STREAM instead of a status: PROTOCOL-HTTP2.md, "HTTP2 Transport Mapping". */
const RESET_CODES: Readonly<Record<number, Code>> = {
  [ErrorCode.refusedStream]: Code.Unavailable,
  [ErrorCode.cancel]: Code.Canceled,
  [ErrorCode.enhanceYourCalm]: Code.ResourceExhausted,
  [ErrorCode.inadequateSecurity]: Code.PermissionDenied,
};

export function headersOf(fields: AnswerFields): Headers {
  const headers = new Headers();
  for (const { name, value } of fields) if (!name.startsWith(":")) headers.append(name, value);
  return headers;
}

/** What is wrong with an answer's headers before any status; undefined: they are gRPC's. */
export function headerError(fields: AnswerFields): ConnectError | undefined {
  const status = fieldValue(fields, ":status") ?? "";
  if (status !== "200")
    return new ConnectError(`HTTP ${status}`, HTTP_CODES[status] ?? Code.Unknown, headersOf(fields));
  const contentType = fieldValue(fields, "content-type");
  if (!isGrpc(contentType)) return new ConnectError(`unsupported content type ${contentType}`, Code.Unknown);
  const encoding = fieldValue(fields, "grpc-encoding") ?? "identity";
  if (encoding === "identity") return undefined;
  return new ConnectError(`unsupported response encoding ${JSON.stringify(encoding)}`, Code.Internal);
}

/** The call's failure by its trailers, or by headers that are all there is; undefined: it went well. */
export function trailerError(fields: AnswerFields): ConnectError | undefined {
  const status = fieldValue(fields, "grpc-status");
  if (status === "0") return undefined;
  if (status === undefined) return new ConnectError("protocol error: missing status", Code.Internal);
  const metadata = headersOf(fields);
  const details = fieldValue(fields, "grpc-status-details-bin");
  if (details !== undefined) {
    try {
      return statusError(fromBinary(StatusSchema, Buffer.from(details, "base64")), metadata);
    } catch (error) {
      const message = `grpc-status-details-bin: ${messageOf(error)}`;
      return new ConnectError(message, Code.Internal, metadata, undefined, error);
    }
  }
  const code = /^\d{1,2}$/.test(status) ? Number(status) : -1;
  const known = Code[code] !== undefined;
  const message = known
    ? percentDecoded(fieldValue(fields, "grpc-message") ?? "")
    : `invalid grpc-status: ${status}`;
  return statusError({ code: known ? code : Code.Internal, message, details: [] }, metadata);
}

/** @param code of RST_STREAM */
export function resetError(code: number): ConnectError {
  const message = `http/2 stream closed with error code ${errorCodeName(code)} (0x${code.toString(16)})`;
  return new ConnectError(message, RESET_CODES[code] ?? Code.Internal);
}

export function fieldValue(fields: AnswerFields, name: string): string | undefined {
  for (const field of fields) if (field.name === name) return field.value;
  return undefined;
}

/** What is no percent-encoding stays as it is: "Status-Message". Unencoded bytes are UTF-8. */
function percentDecoded(text: string): string {
  if (!/[%\x80-\xff]/.test(text)) return text;
  const bytes: number[] = [];
  for (let at = 0; at < text.length; at++) {
    const hex = text.slice(at + 1, at + 3);
    if (text[at] === "%" && /^[0-9a-fA-F]{2}$/.test(hex)) {
      bytes.push(Number.parseInt(hex, 16));
      at += 2;
    } else bytes.push(text.charCodeAt(at));
  }
  return Buffer.from(bytes).toString("utf8");
}
