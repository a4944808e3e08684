import { BunkerdError, quote } from "../../model/errors.ts";

/** `unix:///path` and `/path` are the same; a leading NUL names an abstract socket, as `node:net` has it. */
export function socketPath(address: string): string {
  return address.startsWith("unix://") ? address.slice("unix://".length) : address;
}

/**
 * The path to connect to for the address that a shim answered: what has `unix://` in front is a path, what has no scheme
 * is the name of an abstract socket, as shims before containerd 1.4 have it; containerd's `pkg/shim/util_unix.go`,
 * `AnonDialer`. @throws Unimplemented for vsock and hvsock, InvalidArgument
 */
export function shimSocketPath(address: string): string {
  const scheme = /^([a-z]+):\/\//.exec(address)?.[1];
  if (scheme !== undefined && scheme !== "unix") {
    throw new BunkerdError(
      "Unimplemented",
      `protocol ${scheme} of shim address ${quote(address)}: not implemented`,
    );
  }
  const path = socketPath(address);
  if (path === "") throw new BunkerdError("InvalidArgument", "shim address is empty: invalid argument");
  const abstract = scheme === undefined && !path.startsWith("\0");
  return abstract ? `\0${path.replace(/^@/, "")}` : path;
}
