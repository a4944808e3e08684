import { expect, test } from "bun:test";
import { isGrpc } from "./content-type.ts";

test("gRPC with protobuf is told from gRPC-Web, JSON and the rest", () => {
  for (const yes of [
    "application/grpc",
    "application/grpc+proto",
    "application/grpc+",
    "application/grpc;charset=utf-8",
    "application/grpc+proto; a=b",
  ]) {
    expect(isGrpc(yes), yes).toBe(true);
  }
  for (const no of [
    undefined,
    "",
    "application/grpc-web",
    "application/grpc-web+proto",
    "application/grpc+json",
    "application/grpcproto",
    "application/json",
    "text/application/grpc",
  ]) {
    expect(isGrpc(no), String(no)).toBe(false);
  }
});
