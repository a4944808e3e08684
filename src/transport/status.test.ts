import { expect, test } from "bun:test";
import { create, toBinary } from "@bufbuild/protobuf";
import { StringValueSchema } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import { fail } from "../model/errors.ts";
import { codeName, toConnectError, toStatus } from "./status.ts";

test("expected failures keep their class and words", () => {
  expect(toStatus(fail("NotFound", 'container "web"'))).toMatchObject({
    code: Code.NotFound,
    message: 'container "web": not found',
    expected: true,
  });
  expect(codeName(toStatus(fail("DataLoss", "x")).code)).toBe("DataLoss");
});

test("an internal error that wraps another is worth a log line, one that a client caused is not", () => {
  expect(toStatus(fail("Internal", "x", { cause: new Error("y") })).expected).toBe(false);
  expect(toStatus(fail("Internal", "x")).expected).toBe(true);
  expect(toStatus(fail("NotFound", "x", { cause: new Error("y") })).expected).toBe(true);
});

test("what nobody expected is Unknown with its message, as grpc-go answers it", () => {
  expect(toStatus(new TypeError("x is undefined"))).toMatchObject({
    code: Code.Unknown,
    message: "x is undefined",
    expected: false,
  });
  expect(toStatus("text")).toMatchObject({ code: Code.Unknown, message: "text", expected: false });
  expect(codeName(Code.Unknown)).toBe("Unknown");
});

test("an aborted signal's reason is the caller's doing", () => {
  expect(toStatus(new DOMException("aborted", "AbortError"))).toMatchObject({
    code: Code.Canceled,
    expected: true,
  });
  const timeout = toStatus(new DOMException("late", "TimeoutError"));
  expect(timeout).toMatchObject({ code: Code.DeadlineExceeded, message: "context deadline exceeded" });
});

test("a ConnectError brings its details and trailers", () => {
  const detail = { desc: StringValueSchema, value: { value: "why" } };
  const status = toStatus(new ConnectError("no", Code.Aborted, { "x-hint": "later" }, [detail]));
  expect(status).toMatchObject({ code: Code.Aborted, message: "no" });
  expect(status.metadata?.get("x-hint")).toBe("later");
  expect(status.details[0]?.typeUrl).toBe("type.googleapis.com/google.protobuf.StringValue");
  const why = toBinary(StringValueSchema, create(StringValueSchema, { value: "why" }));
  expect([...(status.details[0]?.value ?? [])]).toEqual([...why]);
});

test("Connect gets the same code and message", () => {
  const error = toConnectError(fail("FailedPrecondition", "namespace is required"));
  expect(error.code).toBe(Code.FailedPrecondition);
  expect(error.rawMessage).toBe("namespace is required: failed precondition");
});
