/** Network namespaces for tests: what a test does to a network it does in one of its own. */
import { dlopen, FFIType } from "bun:ffi";
import { closeSync, openSync, rmSync } from "node:fs";
import { join } from "node:path";
import {
  createNetworkNamespace,
  inNetworkNamespace,
  removeNetworkNamespace,
  setInterfaceUp,
} from "../../src/linux/netns.ts";
import { temporaryFolder } from "./processes.ts";

const CLONE_NEWNET = 0x40000000;
const libc = dlopen("libc.so.6", {
  setns: { args: [FFIType.i32, FFIType.i32], returns: FFIType.i32 },
}).symbols;

function enter(fd: number): void {
  if (libc.setns(fd, CLONE_NEWNET) !== 0) throw new Error("setns failed");
}

/**
 * Puts the test's main thread, and so every program that it starts from now on, into a new network namespace that stands for the host's,
 * until it is disposed of. Whatever needs the real network (downloads) is to be done before.
 */
export function enterHostNetwork(): Disposable & { readonly path: string } {
  const folder = temporaryFolder();
  const path = join(folder, "host");
  createNetworkNamespace(path);
  inNetworkNamespace(path, () => setInterfaceUp("lo"));
  const [own, host] = [openSync("/proc/thread-self/ns/net", "r"), openSync(path, "r")];
  enter(host);
  return {
    path,
    [Symbol.dispose]() {
      enter(own);
      for (const fd of [own, host]) closeSync(fd);
      removeNetworkNamespace(path);
      rmSync(folder, { recursive: true });
    },
  };
}
