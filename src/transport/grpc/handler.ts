import { Code } from "@connectrpc/connect";
import { quote } from "../../model/errors.ts";
import { DEFAULT_LIMITS } from "../limits.ts";
import type { TransportOptions } from "../registry.ts";
import { codeName, type Status, toStatus } from "../status.ts";
import { refusal, UNKNOWN_ENCODING } from "./answers.ts";
import type { Call, CallServer, CallSettings } from "./call.ts";
import { checkEncoding } from "./compression.ts";
import { isGrpcProto } from "./content-type.ts";
import { type Method, MethodTable, unknownPath } from "./methods.ts";
import type { GrpcStream, GrpcStreamHandler, HeaderList } from "./stream.ts";
import { ClientStreamingCall, ServerStreamingCall } from "./streaming.ts";
import { parseTimeout } from "./timeout.ts";
import { UnaryCall } from "./unary.ts";

export interface GrpcHandler {
  readonly handle: GrpcStreamHandler;
  /** Calls that have begun and not ended. */
  openCalls(): number;
}

/** gRPC over any {@link GrpcStream}: finds the method of the path and runs its call. */
export function createGrpcHandler(options: TransportOptions): GrpcHandler {
  const table = new MethodTable(options.bindings);
  const server: CallServer = {
    limits: { ...DEFAULT_LIMITS, ...options.limits },
    logger: options.logger,
    observe: options.observe,
    observeStart: options.observeStart,
    openCalls: 0,
  };
  const handle = (stream: GrpcStream): void => {
    const method = table.find(stream.path);
    const settings = settingsOf(stream);
    if ("refusal" in settings) {
      refuse(stream, settings, method, server);
    } else if (method === undefined) {
      const status = toStatus(unknownPath(stream.path, table));
      refuse(stream, { status, refusal: refusal(200, status) }, method, server);
    } else {
      begin(stream, method, server, settings);
    }
  };
  return { handle, openCalls: () => server.openCalls };
}

function begin(stream: GrpcStream, method: Method, server: CallServer, settings: CallSettings): void {
  let call: Call;
  if (method.kind === "unary") {
    call = new UnaryCall(stream, method, server, settings);
  } else if (method.kind === "server_streaming") {
    call = new ServerStreamingCall(stream, method, server, settings);
  } else {
    const streaming = new ClientStreamingCall(stream, method, server, settings);
    stream.receive(streaming);
    streaming.run();
    return;
  }
  stream.receive(call);
}

interface Refused {
  readonly status: Status;
  readonly refusal: HeaderList;
}

/** Reads the headers that gRPC gives a meaning, in grpc-go's order (`internal/transport/http2_server.go`). */
function settingsOf(stream: GrpcStream): CallSettings | Refused {
  const contentType = stream.header("content-type");
  if (!isGrpcProto(contentType)) {
    const message = `invalid gRPC request content-type ${quote(contentType ?? "")}`;
    return refused(415, plainStatus(Code.InvalidArgument, message));
  }
  const timeout = stream.header("grpc-timeout");
  let timeoutMs: number | undefined;
  if (timeout !== undefined) {
    try {
      timeoutMs = parseTimeout(timeout);
    } catch (error) {
      return refused(400, toStatus(error));
    }
  }
  if (stream.method !== "POST") {
    const message = `Received a HEADERS frame with :method ${quote(stream.method)} which should be POST`;
    return refused(405, plainStatus(Code.Internal, message));
  }
  if (timeoutMs === 0) return refused(200, plainStatus(Code.DeadlineExceeded, "context deadline exceeded"));
  const requestEncoding = stream.header("grpc-encoding");
  if (requestEncoding !== undefined) {
    try {
      checkEncoding(requestEncoding);
    } catch (error) {
      return refused(200, toStatus(error), UNKNOWN_ENCODING);
    }
  }
  return { timeoutMs, requestEncoding };
}

function plainStatus(code: Code, message: string): Status {
  return { code, message, details: [], expected: true };
}

function refused(httpStatus: number, status: Status, extra?: HeaderList): Refused {
  return { status, refusal: refusal(httpStatus, status, extra) };
}

/** Answers before any method was called. An unknown path is observed without its name, which the client chose. */
function refuse(
  stream: GrpcStream,
  { status, refusal }: Refused,
  method: Method | undefined,
  server: CallServer,
): void {
  stream.receive(DEAF);
  stream.end(refusal);
  server.observeStart?.(method?.serviceName ?? "", method?.methodName ?? "");
  server.observe?.({
    service: method?.serviceName ?? "",
    method: method?.methodName ?? "",
    protocol: "grpc",
    code: codeName(status.code),
    seconds: 0,
  });
}

const DEAF = { data: () => undefined, end: () => undefined, cancelled: () => undefined };
