import { expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { create, toBinary } from "@bufbuild/protobuf";
import { BootstrapResultSchema } from "#gen/containerd/runtime/bootstrap/v1/bootstrap_pb.ts";
import { parseBootstrap, readBootstrap, writeBootstrap } from "./bootstrap.ts";

const address = "unix:///run/containerd/s/4fb8";
const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);

test.each([
  [
    "the newest's protobuf",
    toBinary(
      BootstrapResultSchema,
      create(BootstrapResultSchema, { version: 3, address, protocol: "ttrpc" }),
    ),
    3,
    "ttrpc",
  ],
  ["JSON", bytes(`{"version":3,"address":"${address}","protocol":"grpc"}\n`), 3, "grpc"],
  [
    "JSON with fields of later",
    bytes(`\n {"version":2,"address":"${address}","protocol":"ttrpc","x":1}`),
    2,
    "ttrpc",
  ],
  ["a plain address", bytes(`${address}\n`), 2, "ttrpc"],
])("%s", (_name, answer, version, protocol) => {
  expect(parseBootstrap(answer)).toEqual({ version, address, protocol });
});

test.each([
  ["nothing", bytes(""), /no address/],
  [
    "a newer version",
    bytes(`{"version":4,"address":"x","protocol":"ttrpc"}`),
    /unsupported shim version \(4\): not implemented/,
  ],
  ["bytes", new Uint8Array([0x0f, 0xff, 0xff]), /neither a bootstrap result nor an address/],
])("%s is refused", (_name, answer, message) => {
  expect(() => parseBootstrap(answer)).toThrow(message);
});

test("what one daemon wrote the next one reads; an older shim's address becomes a bootstrap file", async () => {
  const folder = mkdtempSync(join(tmpdir(), "bootstrap-"));
  try {
    await expect(readBootstrap(folder)).rejects.toThrow(/not found/);
    writeFileSync(join(folder, "address"), address);
    expect(await readBootstrap(folder)).toEqual({ version: 2, address, protocol: "ttrpc" });
    expect(readFileSync(join(folder, "bootstrap.json"), "utf8")).toBe(
      `{"version":2,"address":"${address}","protocol":"ttrpc"}`,
    );
    await writeBootstrap(folder, { version: 3, address, protocol: "ttrpc" });
    expect((await readBootstrap(folder)).version).toBe(3);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});
