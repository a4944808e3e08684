import { expect, test } from "bun:test";
import { shimSocketPath } from "./address.ts";

test("a shim's address is a path behind unix://, an abstract name without", () => {
  expect(shimSocketPath("unix:///run/containerd/s/abc")).toBe("/run/containerd/s/abc");
  expect(shimSocketPath("unix://\0/containerd-shim/abc.sock")).toBe("\0/containerd-shim/abc.sock");
  expect(shimSocketPath("/containerd-shim/ns/id/shim.sock")).toBe("\0/containerd-shim/ns/id/shim.sock");
  expect(shimSocketPath("\0/containerd-shim/abc.sock")).toBe("\0/containerd-shim/abc.sock");
  expect(shimSocketPath("@/containerd-shim/abc.sock")).toBe("\0/containerd-shim/abc.sock");
});

test("what cannot be connected to is refused by its words", () => {
  expect(() => shimSocketPath("vsock://3:1024")).toThrow(
    'protocol vsock of shim address "vsock://3:1024": not implemented',
  );
  expect(() => shimSocketPath("")).toThrow("shim address is empty");
  expect(() => shimSocketPath("unix://")).toThrow("shim address is empty");
});
