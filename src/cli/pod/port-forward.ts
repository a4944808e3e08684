import { createServer, type Server, type Socket } from "node:net";
import { type CriClient, criClient } from "../../client/cri.ts";
import { type ForwardedConnection, forwardConnection } from "../../client/cri-streams.ts";
import { BunkerdError, fail, messageOf, quote } from "../../model/errors.ts";
import { findPod } from "../../pod/found.ts";
import { type PodOptions, rootsOf } from "./options.ts";

export interface ForwardOptions extends PodOptions {
  readonly bind: string;
}

/** Listens until a signal comes. @param ports `8080:80`, `80` for the same on both sides, `:80` for one that is free */
export async function forwardPorts(
  name: string,
  ports: readonly string[],
  options: ForwardOptions,
): Promise<void> {
  const pairs = ports.map(parsePorts);
  const cri = criClient(options.runtimeEndpoint);
  const servers: Server[] = [];
  try {
    const { pod, observed } = await findPod(cri, rootsOf(options), options.namespace, name);
    const [sandbox] = observed.sandboxes;
    if (sandbox === undefined)
      throw fail("FailedPrecondition", `pod ${quote(pod.metadata.name)} does not run`);
    for (const { local, remote } of pairs) {
      const server = await listen(
        options.bind,
        local,
        (socket) => void forward(cri, sandbox.id, remote, socket),
      );
      servers.push(server);
      const address = server.address() as { port: number };
      process.stdout.write(`Forwarding from ${options.bind}:${address.port} -> ${remote}\n`);
    }
    await new Promise<void>((resolve) => {
      process.once("SIGINT", () => resolve());
      process.once("SIGTERM", () => resolve());
    });
  } finally {
    for (const server of servers) server.close();
    cri.close();
  }
  process.exit(0);
}

function parsePorts(text: string): { local: number; remote: number } {
  const match = /^(?:(\d*):)?(\d+)$/.exec(text);
  const remote = Number(match?.[2] ?? 0);
  const local = match?.[1] === undefined ? remote : Number(match[1] || 0);
  if (match === null || remote < 1 || remote > 65_535 || local > 65_535)
    throw new BunkerdError(
      "InvalidArgument",
      `port ${quote(text)} must be [LOCAL:]REMOTE, each at most 65535`,
    );
  return { local, remote };
}

function listen(host: string, port: number, onConnection: (socket: Socket) => void): Promise<Server> {
  return new Promise((resolve, reject) => {
    const server = createServer({ pauseOnConnect: true }, onConnection);
    server.once("error", reject);
    server.listen({ host, port }, () => resolve(server));
  });
}

async function forward(cri: CriClient, sandboxId: string, port: number, socket: Socket): Promise<void> {
  process.stdout.write(`Handling connection for ${port}\n`);
  socket.on("error", () => socket.destroy());
  try {
    const url = await cri.portForward(sandboxId, port);
    const connection: ForwardedConnection = await forwardConnection(url, port, {
      onData: (bytes) => void socket.write(bytes),
      onClose: (failure) => {
        if (failure !== "") process.stderr.write(`bunkerd: port ${port}: ${failure.trim()}\n`);
        socket.end();
      },
    });
    socket.on("close", () => connection.close());
    for await (const chunk of socket as AsyncIterable<Uint8Array>) await connection.send(chunk);
  } catch (error) {
    process.stderr.write(`bunkerd: port ${port}: ${messageOf(error)}\n`);
    socket.destroy();
  }
}
