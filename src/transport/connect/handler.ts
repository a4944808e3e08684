/** Connect and gRPC-Web, binary and JSON, on HTTP/1.x and, given requests by an HTTP/2 engine, there as well. */
import type { IncomingMessage, ServerResponse } from "node:http";
import { MethodOptions_IdempotencyLevel } from "@bufbuild/protobuf/wkt";
import { Code, type ConnectError, createContextValues } from "@connectrpc/connect";
import type { UniversalServerRequest, UniversalServerResponse } from "@connectrpc/connect/protocol";
import { quote } from "../../model/errors.ts";
import type { Protocol, TransportOptions } from "../registry.ts";
import { codeName } from "../status.ts";
import { codeOfRefusal, refusal, refuse } from "./answers.ts";
import { callKey } from "./call.ts";
import { type HttpMethod, httpMethods } from "./methods.ts";
import { universalRequest, writeResponse } from "./node.ts";

export interface ConnectHandler {
  /** Answers a request of `node:http`, whatever it asks for. */
  handleHttp1(request: IncomingMessage, response: ServerResponse): void;
  /** Resolves when the answer's status and headers are known; never rejects. The body ends with the call. */
  handleUniversal(request: UniversalServerRequest): Promise<UniversalServerResponse>;
}

export function createConnectHandler(options: TransportOptions): ConnectHandler {
  const methods = httpMethods(options);
  const services = new Set(options.bindings.map((binding) => binding.service.typeName));
  const handleUniversal = async (request: UniversalServerRequest): Promise<UniversalServerResponse> => {
    const startedAt = performance.now();
    const route = routeOf(request, methods, services);
    const protocol = protocolOf(request.header.get("content-type") ?? "");
    options.observeStart?.(route.method?.desc.parent.typeName ?? "", route.method?.desc.name ?? "");
    const observe = (error: Code | undefined): void =>
      options.observe?.({
        service: route.method?.desc.parent.typeName ?? "",
        method: route.method?.desc.name ?? "",
        protocol,
        code: error === undefined ? "OK" : codeName(error),
        seconds: (performance.now() - startedAt) / 1000,
      });
    if (route.refused !== undefined) {
      observe(route.code);
      return route.refused;
    }
    try {
      return await answer(request, route.method, route.json, protocol, observe);
    } catch (error) {
      // Connect answers every failure of a call itself: this is one of the handler.
      options.logger.error("request failed", { path: route.method.binary.requestPath, error });
      return refuse(request.header.get("content-type") ?? "", refusal(Code.Internal, "internal error"));
    }
  };
  return {
    handleUniversal,
    handleHttp1(request, response) {
      void handleUniversal(universalRequest(request, response)).then((answer) =>
        writeResponse(answer, response),
      );
    },
  };
}

/** Runs the method's handler; a streaming one answers as soon as its implementation runs. */
async function answer(
  request: UniversalServerRequest,
  method: HttpMethod,
  json: boolean,
  protocol: Protocol,
  observe: (error: Code | undefined) => void,
): Promise<UniversalServerResponse> {
  const early = Promise.withResolvers<UniversalServerResponse>();
  let ended = false;
  const contextValues = createContextValues().set(callKey, {
    streaming(header, trailer) {
      const answer = { status: 200, header: new Headers(header), body: bodyOf(handled) };
      early.resolve(protocol === "grpc" ? { ...answer, trailer } : answer);
    },
    ended(error: ConnectError | undefined) {
      ended = true;
      observe(error?.code);
    },
  });
  // Connect refuses bidi streams on HTTP/1.x for fear of clients that expect full duplex. Half duplex is served.
  const handler = json ? method.json : method.binary;
  const handled = handler({
    ...request,
    header: headersFor(request),
    httpVersion: "2.0",
    contextValues,
  }).then((response) => {
    if (!ended && response.status !== 200) observe(codeOfRefusal(response.status));
    return response;
  });
  return await Promise.race([handled, early.promise]);
}

/** Timers cannot wait longer than 2^31 ms, and would then not wait at all. */
const LONGEST_TIMEOUT_MS = 0x7fffffff;

const GRPC_TIMEOUT_MS: Readonly<Record<string, number>> = { H: 3_600_000, M: 60_000, S: 1000 };

/** The request's headers without what would mislead Connect's handlers. */
function headersFor(request: UniversalServerRequest): Headers {
  const header = new Headers(request.header);
  if (request.method === "GET") header.delete("content-type");
  if (Number(header.get("connect-timeout-ms")) > LONGEST_TIMEOUT_MS) header.delete("connect-timeout-ms");
  const [, count, unit = ""] = /^(\d{1,8})([HMS])$/.exec(header.get("grpc-timeout") ?? "") ?? [];
  if (Number(count) * (GRPC_TIMEOUT_MS[unit] ?? 0) > LONGEST_TIMEOUT_MS) header.delete("grpc-timeout");
  return header;
}

async function* bodyOf(response: Promise<UniversalServerResponse>): AsyncGenerator<Uint8Array> {
  const { body } = await response;
  if (body !== undefined) yield* body;
}

type Route =
  | { readonly method: HttpMethod; readonly json: boolean; readonly refused?: undefined }
  | {
      readonly method: HttpMethod | undefined;
      readonly refused: UniversalServerResponse;
      readonly code: Code;
    };

function routeOf(
  request: UniversalServerRequest,
  methods: ReadonlyMap<string, HttpMethod>,
  services: ReadonlySet<string>,
): Route {
  const { pathname, search } = pathOf(request.url);
  const contentType = request.header.get("content-type") ?? "";
  const method = methods.get(pathname);
  const no = (code: Code, message: string, status?: number, extra?: Record<string, string>): Route => ({
    method,
    code,
    refused: refuse(contentType, refusal(code, message), status, extra),
  });
  if (method === undefined) {
    const [, service = "", name = ""] = pathname.split("/");
    if (services.has(service)) return no(Code.Unimplemented, `unknown method ${name} for service ${service}`);
    const unknown = /^\/[\w.]+\/\w+$/.test(pathname)
      ? `unknown service ${service}`
      : `nothing is served at ${quote(pathname)}`;
    const where = 'paths are /package.Service/Method, listed by gRPC reflection and by "bunkerd openapi"';
    return no(Code.Unimplemented, `${unknown}: ${where}`, 404);
  }
  if (request.method === "GET") return routeGet(method, search, no);
  if (request.method !== "POST") {
    return no(Code.Unimplemented, `${request.method} ${pathname}: use POST`, 405, { allow: allowed(method) });
  }
  const problem = contentTypeProblem(contentType, method);
  if (problem !== undefined)
    return no(Code.InvalidArgument, problem, 415, { "accept-post": accepted(method).join(", ") });
  return { method, json: /json/i.test(contentType) };
}

type Refuse = (code: Code, message: string, status?: number, extra?: Record<string, string>) => Route;

/** Source: https://connectrpc.com/docs/protocol#unary-get-request */
function routeGet(method: HttpMethod, search: string, no: Refuse): Route {
  const path = method.binary.requestPath;
  if (!mayGet(method))
    return no(Code.Unimplemented, `GET ${path}: use POST`, 405, { allow: allowed(method) });
  const parameters = new Map<string, string>();
  for (const pair of search.split("&").filter((one) => one !== "")) {
    const [name = "", value = ""] = pair.split(/=(.*)/s);
    try {
      parameters.set(name, decodeURIComponent(value.replaceAll("+", " ")));
    } catch {
      return no(
        Code.InvalidArgument,
        `GET ${path}: the value of ${quote(name)} is not percent-encoded UTF-8`,
      );
    }
  }
  const encoding = parameters.get("encoding");
  if (encoding !== "json" && encoding !== "proto") {
    return no(
      Code.InvalidArgument,
      `GET ${path}: want ?encoding=json&message={...}, got encoding ${quote(encoding ?? "")}`,
    );
  }
  if (!parameters.has("message"))
    return no(Code.InvalidArgument, `GET ${path}: parameter "message" is missing`);
  return { method, json: encoding === "json" };
}

function mayGet(method: HttpMethod): boolean {
  const level = method.desc.idempotency;
  return method.desc.methodKind === "unary" && level === MethodOptions_IdempotencyLevel.NO_SIDE_EFFECTS;
}

function allowed(method: HttpMethod): string {
  return mayGet(method) ? "GET, POST" : "POST";
}

function accepted(method: HttpMethod): string[] {
  const own = method.desc.methodKind === "unary" ? "application/" : "application/connect+";
  return [`${own}json`, `${own}proto`, "application/grpc-web+proto", "application/grpc-web+json"];
}

const CONTENT_TYPE =
  /^application\/(connect\+)?(?:json|proto)(?:; ?charset=utf-?8)?$|^application\/grpc(?:-web)?(?:\+(?:proto|json))?(?:;.*)?$/i;

function contentTypeProblem(contentType: string, method: HttpMethod): string | undefined {
  const path = method.binary.requestPath;
  const match = CONTENT_TYPE.exec(contentType);
  if (match === null) {
    return `${path}: content-type ${quote(contentType)} is not served: use ${accepted(method).join(", ")}`;
  }
  if (/^application\/grpc/i.test(contentType)) return undefined;
  const streams = method.desc.methodKind !== "unary";
  if (streams === (match[1] !== undefined)) return undefined;
  return `${path} ${streams ? "streams" : "does not stream"}: use content-type ${accepted(method).join(", ")}`;
}

function protocolOf(contentType: string): Protocol {
  if (/^application\/grpc-web/i.test(contentType)) return "grpc-web";
  return /^application\/grpc/i.test(contentType) ? "grpc" : "connect";
}

/** The URL parser would normalise what is to be refused as it came. */
function pathOf(url: string): { pathname: string; search: string } {
  const rest = url.replace(/^[a-z]+:\/\/[^/?#]*/i, "");
  const mark = rest.indexOf("?");
  return mark === -1
    ? { pathname: rest, search: "" }
    : { pathname: rest.slice(0, mark), search: rest.slice(mark + 1) };
}
