import type { Logger } from "../lib/log.ts";
import { fail, messageOf } from "../model/errors.ts";
import type { TcpAddress } from "../transport/listen.ts";
import { prepareSocket, publishSocket, removeSocket, type UnixAddress } from "../transport/socket-path.ts";

/** What is answered at a path, by GET and HEAD. */
export type Page = () => Response | Promise<Response>;

export interface EndpointOptions {
  readonly name: string;
  readonly pages: Readonly<Record<string, Page>>;
  readonly logger: Logger;
}

type Where = ({ readonly unix: string } | { readonly hostname: string; readonly port: number }) & {
  readonly name: string;
};

/** A small HTTP/1.1 server for pages that are no RPC: metrics, health, debug. */
export class Endpoint {
  readonly #address: UnixAddress | TcpAddress;
  readonly #options: EndpointOptions;
  #server: Bun.Server<undefined> | undefined;
  #inode: number | undefined;

  constructor(address: UnixAddress | TcpAddress, options: EndpointOptions) {
    this.#address = address;
    this.#options = options;
  }

  /** The TCP port that is listened on. */
  get port(): number | undefined {
    return this.#server?.port;
  }

  /** @throws AlreadyExists, FailedPrecondition naming the address */
  async start(): Promise<void> {
    if ("path" in this.#address) {
      const temporary = await prepareSocket(this.#address);
      this.#server = this.#serve({ unix: temporary, name: this.#address.path });
      this.#inode = publishSocket(temporary, this.#address);
    } else {
      const { host, port } = this.#address;
      this.#server = this.#serve({ hostname: host, port, name: `${host}:${port}` });
    }
  }

  async close(): Promise<void> {
    if ("path" in this.#address && this.#inode !== undefined) removeSocket(this.#address.path, this.#inode);
    await this.#server?.stop(true);
  }

  #serve({ name, ...where }: Where): Bun.Server<undefined> {
    const options = { development: false, fetch: (request: Request) => this.#answer(request) } as const;
    try {
      return "unix" in where
        ? Bun.serve({ ...options, ...where })
        : Bun.serve({ ...options, ...where, reusePort: false });
    } catch (error) {
      const code =
        (error as NodeJS.ErrnoException).code === "EADDRINUSE" ? "AlreadyExists" : "FailedPrecondition";
      throw fail(code, `listen on ${name} for ${this.#options.name}: ${messageOf(error)}`, { cause: error });
    }
  }

  async #answer(request: Request): Promise<Response> {
    const { pathname } = new URL(request.url);
    const page = Object.hasOwn(this.#options.pages, pathname) ? this.#options.pages[pathname] : undefined;
    if (page === undefined) return new Response(`no page ${pathname}\n`, { status: 404 });
    if (request.method !== "GET" && request.method !== "HEAD") return new Response(null, { status: 405 });
    try {
      return await page();
    } catch (error) {
      this.#options.logger.error(`${this.#options.name} page failed`, { path: pathname, error });
      return new Response(`${messageOf(error)}\n`, { status: 500 });
    }
  }
}

/** Splits `host:port`, `[v6]:port`, `:port` as Go's net.Listen takes it. @throws InvalidArgument */
export function parseTcpAddress(address: string): TcpAddress {
  const match = /^(?:\[([^\]]*)\]|([^:]*)):(\d{1,5})$/.exec(address);
  const port = Number(match?.[3]);
  if (match === null || port > 65_535)
    throw fail("InvalidArgument", `address ${JSON.stringify(address)} is not host:port`);
  const host = match[1] ?? match[2] ?? "";
  return { host: host === "" ? "::" : host, port };
}
