/**
 * A shim with sandboxes of its own, as Debian packages none: it serves the Sandbox API by itself, and the tasks of a real
 * containerd-shim-runc-v2 that it has started. Run by {@link writeSandboxShim}'s script, by Bun.
 */
import { existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type CallOptions, createClient } from "@connectrpc/connect";
import { Sandbox } from "#gen/containerd/runtime/sandbox/v1/sandbox_pb.ts";
import { Task } from "#gen/containerd/task/v3/shim_pb.ts";
import { silentLogger } from "../../src/lib/log.ts";
import { Listener } from "../../src/transport/listener.ts";
import { bind, type ServiceBinding } from "../../src/transport/registry.ts";
import { ttrpcTransport } from "../../src/transport/ttrpc/client.ts";
import { TtrpcServer } from "../../src/transport/ttrpc/server.ts";

/** Writes a program `<folder>/sandbox-shim`; the path. @param real a containerd-shim-runc-v2 */
export function writeSandboxShim(folder: string, real: string): string {
  return writeShim(join(folder, "sandbox-shim"), real, "ttrpc");
}

/** The same that has no sandboxes, and speaks gRPC. */
export function writeGrpcShim(folder: string, real: string): string {
  return writeShim(join(folder, "grpc-shim"), real, "grpc");
}

function writeShim(path: string, real: string, protocol: string): string {
  const own = `${process.execPath} ${import.meta.path}`;
  const text = `#!/bin/sh
for last; do :; done
[ "$last" = start ] && exec ${own} start ${protocol} ${real} "$@"
exec ${real} "$@"
`;
  writeFileSync(path, text, { mode: 0o755 });
  return path;
}

const NAMESPACE = "containerd-namespace-ttrpc";

async function start(protocol: string, real: string, args: readonly string[]): Promise<void> {
  // CRI has no spec of a sandbox, and runc's shim does not start without one.
  if (!existsSync("config.json")) writeFileSync("config.json", '{"ociVersion":"1.2.0"}');
  const stdin = readFileSync(0);
  const child = Bun.spawnSync([real, ...args], { stdin, stderr: "inherit" });
  if (child.exitCode !== 0) process.exit(child.exitCode);
  const { address } = JSON.parse(child.stdout.toString()) as { address: string };
  const socket = `${address.replace(/^unix:\/\//, "").slice(0, 90)}.s`;
  const served = Bun.spawn([process.execPath, import.meta.path, protocol, address, socket], {
    stdio: ["ignore", "ignore", "ignore"],
    detached: true,
  });
  served.unref();
  while (!existsSync(socket)) await Bun.sleep(5);
  // containerd dials what a shim that speaks gRPC answers as a plain path.
  const scheme = protocol === "grpc" ? "" : "unix://";
  process.stdout.write(JSON.stringify({ version: 3, address: `${scheme}${socket}`, protocol }));
}

interface RealTasks {
  readonly tasks: object;
  readonly real: Record<string, (request: unknown, options: CallOptions) => Promise<unknown>>;
  readonly closed: Promise<unknown>;
}

/** The tasks of the real shim, for whoever asks. @param header of the namespace */
function realTasks(address: string, header: string): RealTasks {
  const transport = ttrpcTransport({ connect: address.replace(/^unix:\/\//, "") });
  const real = createClient(Task, transport) as unknown as Record<
    string,
    (request: unknown, options: CallOptions) => Promise<unknown>
  >;
  const tasks = Object.fromEntries(
    Task.methods.map(({ localName }) => [
      localName,
      (request: unknown, { requestHeader, signal }: { requestHeader: Headers; signal: AbortSignal }) =>
        real[localName]?.(request, { headers: { [NAMESPACE]: requestHeader.get(header) ?? "" }, signal }),
    ]),
  );
  return { tasks, real, closed: transport.closed };
}

/** As shims do, which remove their sockets themselves. */
function endAt(socket: string): never {
  rmSync(socket, { force: true });
  process.exit(0);
}

async function serveGrpc(address: string, socket: string): Promise<void> {
  const { tasks, closed } = realTasks(address, "containerd-namespace");
  const listener = new Listener(
    { path: socket },
    { bindings: [bind(Task, tasks as object) as unknown as ServiceBinding], logger: silentLogger },
  );
  await listener.start();
  await closed;
  endAt(socket);
}

async function serve(address: string, socket: string): Promise<void> {
  const { tasks, real } = realTasks(address, NAMESPACE);
  const ended = Promise.withResolvers<void>();
  let state = "SANDBOX_NOTREADY";
  const sandbox = bind(Sandbox, {
    createSandbox: () => ({}),
    startSandbox() {
      state = "SANDBOX_READY";
      return { pid: process.pid };
    },
    platform: () => ({ platform: { os: "linux", architecture: "amd64" } }),
    stopSandbox() {
      state = "SANDBOX_NOTREADY";
      ended.resolve();
      return {};
    },
    async waitSandbox() {
      await ended.promise;
      return { exitStatus: 0 };
    },
    sandboxStatus: ({ sandboxId, verbose }) => ({
      ...{ sandboxId, pid: process.pid, state },
      info: verbose ? { info: '{"by":"a test"}' } : {},
    }),
    pingSandbox: () => ({}),
    async shutdownSandbox({ sandboxId }, { requestHeader }) {
      ended.resolve();
      const headers = { [NAMESPACE]: requestHeader.get(NAMESPACE) ?? "" };
      await real["shutdown"]?.({ id: sandboxId, now: true }, { headers }).catch(() => undefined);
      setTimeout(endAt, 20, socket);
      return {};
    },
    sandboxMetrics: ({ sandboxId }) => ({ metrics: { id: sandboxId } }),
  });
  const server = new TtrpcServer(
    { path: socket, uid: 0, gid: 0 },
    { bindings: [bind(Task, tasks as object), sandbox], logger: silentLogger },
  );
  await server.start();
}

const [mode, ...given] = import.meta.main ? process.argv.slice(2) : [];
if (mode === "start") await start(given[0] ?? "", given[1] ?? "", given.slice(2));
if (mode === "ttrpc") await serve(given[0] ?? "", given[1] ?? "");
if (mode === "grpc") await serveGrpc(given[0] ?? "", given[1] ?? "");
