import type { Server } from "node:net";
import { setBacklog } from "../linux/listen.ts";
import { fail, messageOf } from "../model/errors.ts";
import { ACCEPT_BACKLOG } from "./limits.ts";
import { prepareSocket, publishSocket, type UnixAddress } from "./socket-path.ts";

/** PEM texts. With `ca`, who connects must show a certificate of one of its authorities. */
export interface TlsFiles {
  readonly cert: string;
  readonly key: string;
  readonly ca?: string;
}

export interface TcpAddress {
  readonly host: string;
  /** 0 takes a free one. */
  readonly port: number;
  readonly tls?: TlsFiles | undefined;
}

export type ListenAddress = UnixAddress | TcpAddress;

/**
 * Lets a server listen; a unix socket appears at its path complete with owner and mode. Answers that socket's inode, for
 * `removeSocket`. @throws AlreadyExists if the address is taken, and what {@link prepareSocket} throws
 */
export async function listen(server: Server, address: ListenAddress): Promise<number | undefined> {
  if (!("path" in address)) {
    const { host, port } = address;
    await bindServer(server, { host, port }, `${host}:${port}`);
    return undefined;
  }
  const temporary = await prepareSocket(address);
  await bindServer(server, { path: temporary }, address.path);
  try {
    return publishSocket(temporary, address);
  } catch (error) {
    server.close();
    throw error;
  }
}

function bindServer(
  server: Server,
  where: { path: string } | { host: string; port: number },
  name: string,
): Promise<void> {
  return new Promise((resolve, reject) => {
    const refused = (error: NodeJS.ErrnoException): void => {
      const code = error.code === "EADDRINUSE" ? "AlreadyExists" : "FailedPrecondition";
      reject(fail(code, `listen on ${name}: ${messageOf(error)}`, { cause: error }));
    };
    server.once("error", refused);
    server.listen(where, () => {
      server.off("error", refused);
      const fd = (server as { _handle?: { fd?: number } })._handle?.fd;
      if (fd !== undefined) setBacklog(fd, ACCEPT_BACKLOG);
      resolve();
    });
  });
}
