import { renameSync, writeFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { fromBinary } from "@bufbuild/protobuf";
import { BootstrapResultSchema } from "#gen/containerd/runtime/bootstrap/v1/bootstrap_pb.ts";
import { BunkerdError, fail, messageOf } from "../model/errors.ts";

/** How to reach a shim: what its `start` answered. */
export interface Bootstrap {
  /** Of the task service: 2 or 3. */
  readonly version: number;
  /** `unix:///path`; a name without a scheme is an abstract socket. */
  readonly address: string;
  /** `ttrpc` or `grpc`. */
  readonly protocol: string;
}

const LATEST_VERSION = 3;
const FILE = "bootstrap.json";
/** Before containerd 1.7, written by the shim itself. */
const ADDRESS_FILE = "address";

/**
 * Reads any of the three answers: protobuf (containerd 2.3 on), JSON (2.0 on), the plain address before. Told apart by their
 * first byte: protobuf's fields begin with a control character. Source: `core/runtime/v2/shim.go`, `parseStartResponse`.
 * @throws Unimplemented for a newer version, FailedPrecondition if there is no address
 */
export function parseBootstrap(answer: Uint8Array): Bootstrap {
  const bootstrap = (answer[0] ?? 0) >= 0x20 || isSpace(answer[0]) ? parseText(answer) : parseMessage(answer);
  if (bootstrap.version > LATEST_VERSION) {
    throw fail("Unimplemented", `unsupported shim version (${bootstrap.version})`);
  }
  if (bootstrap.address === "") throw fail("FailedPrecondition", "shim answered no address");
  return bootstrap;
}

function isSpace(byte: number | undefined): boolean {
  return byte === 0x0a || byte === 0x0d || byte === 0x09;
}

function parseMessage(answer: Uint8Array): Bootstrap {
  try {
    const { version, address, protocol } = fromBinary(BootstrapResultSchema, answer);
    return { version, address, protocol };
  } catch (error) {
    const message = `shim's answer is neither a bootstrap result nor an address: ${messageOf(error)}`;
    throw new BunkerdError("FailedPrecondition", message, { cause: error });
  }
}

function parseText(answer: Uint8Array): Bootstrap {
  const text = new TextDecoder().decode(answer).trim();
  const parsed = text.startsWith("{") ? parseJson(text) : undefined;
  return parsed !== undefined && parsed.version >= 2
    ? parsed
    : { version: 2, address: text, protocol: "ttrpc" };
}

function parseJson(text: string): Bootstrap | undefined {
  try {
    const { version, address, protocol } = JSON.parse(text) as Record<string, unknown>;
    if (typeof version !== "number" || typeof address !== "string" || typeof protocol !== "string")
      return undefined;
    return { version, address, protocol };
  } catch {
    // A plain address that begins like JSON.
    return undefined;
  }
}

/** Writes it so that any daemon can reach the shim again. */
export function writeBootstrap(bundlePath: string, { version, address, protocol }: Bootstrap): void {
  const path = join(bundlePath, FILE);
  const hidden = join(bundlePath, `.${FILE}`);
  writeFileSync(hidden, JSON.stringify({ version, address, protocol }));
  renameSync(hidden, path);
}

/** What was written at the start of the shim, also by older daemons. @throws NotFound, and as {@link parseBootstrap} */
export async function readBootstrap(bundlePath: string): Promise<Bootstrap> {
  const written = await readIfThere(join(bundlePath, FILE));
  if (written !== undefined) return parseBootstrap(written);
  const address = await readIfThere(join(bundlePath, ADDRESS_FILE));
  if (address === undefined) throw fail("NotFound", `address of the shim in ${bundlePath}`);
  const bootstrap = parseBootstrap(address);
  writeBootstrap(bundlePath, bootstrap);
  return bootstrap;
}

async function readIfThere(path: string): Promise<Uint8Array | undefined> {
  try {
    return await readFile(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
}
