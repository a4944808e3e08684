import type { ClientHttp2Session, ClientHttp2Stream, OutgoingHttpHeaders } from "node:http2";
import { connect as connectHttp2 } from "node:http2";
import { connect } from "node:net";

/** RFC 9113 section 6.9.2. */
const DEFAULT_WINDOW_BYTES = 65_535;

/**
 * The HTTP/2 connection that Connect's transport makes its requests on: opened when one is needed, kept while it lives,
 * opened anew after it was lost. Connect's own manager is not used because under Bun a connection that the server closes
 * ends a waiting stream without a word: neither `error` nor `response`, so that the call would wait for ever.
 */
export class Session {
  readonly authority = "http://localhost";
  readonly #path: string;
  #current: Promise<ClientHttp2Session> | undefined;
  #windowBytes = DEFAULT_WINDOW_BYTES;
  /** Open connections, with how many streams each has. */
  readonly #streams = new Map<ClientHttp2Session, number>();

  /** @param path of a unix socket */
  constructor(path: string) {
    this.#path = path;
  }

  /** True of a server that has not said what a stream may send ahead, nor that it keeps to it; until it has answered, of any. */
  get widensWindows(): boolean {
    return this.#windowBytes === DEFAULT_WINDOW_BYTES;
  }

  /** Called by Connect. Rejects with Node's error if the socket cannot be reached. */
  async request(method: string, path: string, headers: OutgoingHttpHeaders): Promise<ClientHttp2Stream> {
    const session = await this.#session();
    const stream = session.request({ ...headers, ":method": method, ":path": path });
    this.#hold(session, stream);
    let responded = false;
    stream.once("response", () => {
      responded = true;
    });
    const tellLost = (): void => {
      if (stream.listenerCount("error") > 0) stream.emit("error", lost(this.#path));
    };
    // A reset is for Connect's own listener, which comes after this one and tells it by its code. A lost connection closes its
    // streams as if they had been reset with CANCEL, which no server did: that must be told first.
    stream.once("close", () => {
      if (session.destroyed) tellLost();
      else if (!responded) queueMicrotask(tellLost);
    });
    return stream;
  }

  /** Called by Connect with each chunk, for keep-alive that a unix socket does not need. */
  notifyResponseByteRead(): void {}

  /** Ends every stream. The next request opens a new connection. */
  close(): void {
    this.#current = undefined;
    for (const session of [...this.#streams.keys()]) session.destroy();
  }

  /** A connection without streams does not keep the process. */
  #hold(session: ClientHttp2Session, stream: ClientHttp2Stream): void {
    const streams = (this.#streams.get(session) ?? 0) + 1;
    this.#streams.set(session, streams);
    if (streams === 1) session.ref();
    stream.once("close", () => {
      const open = this.#streams.get(session);
      if (open === undefined) return;
      this.#streams.set(session, open - 1);
      if (open === 1) session.unref();
    });
  }

  #session(): Promise<ClientHttp2Session> {
    this.#current ??= this.#connect();
    return this.#current;
  }

  #connect(): Promise<ClientHttp2Session> {
    const session = connectHttp2(this.authority, { createConnection: () => connect({ path: this.#path }) });
    this.#streams.set(session, 0);
    const connected = new Promise<ClientHttp2Session>((resolve, reject) => {
      session.once("connect", () => resolve(session));
      session.once("error", reject);
      session.once("close", () => reject(lost(this.#path)));
    });
    session.once("remoteSettings", ({ initialWindowSize = DEFAULT_WINDOW_BYTES }) => {
      this.#windowBytes = initialWindowSize;
    });
    const retire = (): void => {
      if (this.#current === connected) this.#current = undefined;
    };
    session.on("error", retire);
    session.on("goaway", retire);
    session.on("close", () => {
      retire();
      this.#streams.delete(session);
    });
    return connected;
  }
}

function lost(path: string): Error {
  return Object.assign(new Error(`connection to ${path} closed`), { code: "ECONNRESET" });
}
