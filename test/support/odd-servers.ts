/** Servers of HTTP on loopback that answer what a test wants, well-formed or not. */
import { createServer, type Server, type Socket } from "node:net";

/** Answers by a function; `host` is `127.0.0.1:port`. */
type Serve = (handle: (request: Request, url: URL) => Response | Promise<Response>) => {
  readonly host: string;
};

/** Answers each request with what `talk` writes to the socket. */
type ServeRaw = (
  talk: (socket: Socket, head: string) => void,
  onRequest?: (head: string) => void,
) => Promise<{ readonly host: string; readonly open: Set<Socket> }>;

export function oddServers(): {
  readonly serve: Serve;
  readonly serveRaw: ServeRaw;
  readonly stop: () => Promise<void>;
} {
  const stops: (() => unknown)[] = [];
  const serve: Serve = (handle) => {
    const server = Bun.serve({
      port: 0,
      hostname: "127.0.0.1",
      fetch: async (request) => await handle(request, new URL(request.url)),
    });
    stops.push(async () => await server.stop(true));
    return { host: `127.0.0.1:${server.port}` };
  };
  const serveRaw: ServeRaw = async (talk, onRequest = () => undefined) => {
    const open = new Set<Socket>();
    const server: Server = createServer((socket) => {
      open.add(socket);
      socket.on("error", () => undefined);
      socket.on("close", () => open.delete(socket));
      socket.on("data", (data: Buffer) => {
        onRequest(data.toString());
        if (data.includes("\r\n\r\n")) talk(socket, data.toString());
      });
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    stops.push(() => {
      for (const socket of open) socket.destroy();
      server.close();
    });
    return { host: `127.0.0.1:${(server.address() as { port: number }).port}`, open };
  };
  return {
    serve,
    serveRaw,
    stop: async () => {
      for (const stop of stops) await stop();
    },
  };
}

export async function failureOf(
  work: Promise<unknown>,
): Promise<{ readonly code: string; readonly message: string }> {
  return await work.then(
    () => ({ code: "OK", message: "" }),
    (error: Error & { code: string }) => ({ code: error.code, message: error.message }),
  );
}

export async function read(pieces: AsyncIterable<Uint8Array>, into: Uint8Array[] = []): Promise<Buffer> {
  for await (const piece of pieces) into.push(piece);
  return Buffer.concat(into);
}
