import { expect, test } from "bun:test";
import { isGrpc, isGrpcProto } from "./content-type.ts";

const ANSWERED = [
  "application/grpc",
  "application/grpc+proto",
  "application/grpc+",
  "application/grpc;charset=utf-8",
  "application/grpc+proto; a=b",
];
const REFUSED = ["application/grpcproto", "application/grpc+thrift", "application/grpc-proto"];
const CONNECT = [
  undefined,
  "",
  "application/grpc-web",
  "application/grpc-web+proto",
  "application/grpc+json",
  "application/json",
  "text/application/grpc",
];

test("gRPC is told from gRPC-Web, JSON and the rest", () => {
  for (const type of [...ANSWERED, ...REFUSED]) expect(isGrpc(type), type).toBe(true);
  for (const type of CONNECT) expect(isGrpc(type), String(type)).toBe(false);
});

test("gRPC with protobuf is told from gRPC with something else", () => {
  for (const type of ANSWERED) expect(isGrpcProto(type), type).toBe(true);
  for (const type of [...REFUSED, ...CONNECT]) expect(isGrpcProto(type), String(type)).toBe(false);
});
