import { createServer, type Server, type Socket } from "node:net";
import { type CriClient, criClient } from "../../client/cri.ts";
import { type ForwardedConnection, forwardConnection } from "../../client/cri-streams.ts";
import { BunkerdError, fail, messageOf, quote } from "../../model/errors.ts";
import type { PodSpec } from "../../pod/api/pod.ts";
import { findPod } from "../../pod/found.ts";
import { type PodOptions, rootsOf } from "./options.ts";

export interface ForwardOptions extends PodOptions {
  readonly bind: string;
}

/** Listens until a signal comes. @param ports `8080:80`, `80` for the same on both sides, `:80` for one that is free, `8080:http` */
export async function forwardPorts(
  name: string,
  ports: readonly string[],
  options: ForwardOptions,
): Promise<void> {
  const texts = ports.map(parsePorts);
  const cri = criClient(options.runtimeEndpoint);
  const servers: Server[] = [];
  try {
    const { pod, observed } = await findPod(cri, rootsOf(options), options.namespace, name);
    const pairs = texts.map((each) => withNumbers(pod.spec, each));
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

interface Ports {
  /** 0: one that is free. */
  readonly local: number;
  readonly remote: number;
}

/** @param text `[LOCAL:]REMOTE` */
function parsePorts(text: string): { local: string | undefined; remote: string; text: string } {
  const match = /^(?:(\d{0,5}):)?([\w-]+)$/.exec(text);
  if (match !== null) return { local: match[1], remote: match[2] ?? "", text };
  throw notPorts(text);
}

function notPorts(text: string): BunkerdError {
  const form = "must be [LOCAL:]REMOTE: numbers of at most 65535, REMOTE also the name of a port";
  return new BunkerdError("InvalidArgument", `port ${quote(text)} ${form}`);
}

/** A name is looked up in the pod's containers, as by kubectl. @throws InvalidArgument, NotFound with the names there are */
function withNumbers(
  { containers, initContainers = [] }: PodSpec,
  { local, remote, text }: ReturnType<typeof parsePorts>,
): Ports {
  const named = [...containers, ...initContainers].flatMap(({ ports = [] }) => ports);
  const isNumber = /^\d+$/.test(remote);
  const port = isNumber ? Number(remote) : named.find(({ name }) => name === remote)?.containerPort;
  if (port === undefined) {
    const names = named.flatMap(({ name }) => name ?? []).join(", ") || "none";
    throw fail("NotFound", `port ${quote(remote)} of the pod's containers (they have ${names})`);
  }
  const own = local === undefined ? port : Number(local || 0);
  if (port < 1 || port > 65_535 || own > 65_535) throw notPorts(text);
  return { local: own, remote: port };
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
