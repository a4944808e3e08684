import { BunkerdError, messageOf } from "../../model/errors.ts";
import type { MethodTable } from "../grpc/methods.ts";
import { toStatus } from "../status.ts";
import type { ByteStream } from "./byte-stream.ts";
import { FrameDecoder, FrameFlag, type FrameHeader, type FrameSink, FrameType } from "./frames.ts";
import { type Call, decodeCall, encodeFailure, oversizedMessage } from "./messages.ts";
import { Output } from "./output.ts";
import type { CallServer, CallStream, ServerCall } from "./server-call.ts";
import { serverCall } from "./server-methods.ts";

/** Calls that one connection may have open at once; bunkerd's own figure. */
const MAX_OPEN_CALLS = 10_000;

/** Serves one connection. Its calls are cancelled when it ends: the reference's `server.go`, `serverConn.run`. */
export class ServerConnection implements FrameSink {
  readonly #socket: ByteStream;
  readonly #output: Output;
  readonly #decoder = new FrameDecoder(this);
  readonly #table: MethodTable;
  readonly #server: CallServer;
  readonly #calls = new Map<number, ServerCall>();
  #lastStreamId = 0;
  #draining = false;
  #paused = 0;
  #ended = false;

  constructor(socket: ByteStream, table: MethodTable, server: CallServer) {
    this.#socket = socket;
    this.#table = table;
    this.#server = server;
    this.#output = new Output(socket);
    socket.on("data", (chunk: Buffer) => this.#receive(chunk));
    // A client that resets its connection is none of our errors.
    socket.on("error", (error) => server.logger.trace("ttrpc connection failed", { error }));
    socket.once("end", () => this.destroy());
    socket.once("close", () => this.destroy());
  }

  /** Ends the connection when its last call has ended, at once if there is none. */
  drain(): void {
    this.#draining = true;
    if (this.#calls.size === 0) this.#end();
  }

  /** Cancels every call. */
  destroy(): void {
    this.#ended = true;
    this.#socket.destroy();
    const calls = [...this.#calls.values()];
    this.#calls.clear();
    for (const call of calls) call.cancelled();
  }

  frame(header: FrameHeader, data: Uint8Array): void {
    if (this.#ended) return;
    const { streamId, type, flags } = header;
    try {
      if (streamId % 2 !== 1) throw invalid("StreamID must be odd for client initiated streams");
      if (type === FrameType.request) this.#request(streamId, flags, data);
      else if (type === FrameType.data) this.#data(streamId, flags, data);
      // Other types are left to versions to come.
    } catch (error) {
      this.#refuse(streamId, error);
    }
  }

  oversized({ streamId }: FrameHeader, sizeBytes: number): void {
    if (!this.#ended)
      this.#refuse(streamId, new BunkerdError("ResourceExhausted", oversizedMessage(sizeBytes)));
  }

  #receive(chunk: Buffer): void {
    this.#decoder.push(chunk);
    // Who does not take its answers is asked no more.
    if (this.#output.full) void this.#waitForRoom();
  }

  async #waitForRoom(): Promise<void> {
    this.#pause();
    await this.#output.drained();
    this.#resume();
  }

  #request(streamId: number, flags: number, data: Uint8Array): void {
    if (streamId <= this.#lastStreamId) throw invalid("StreamID cannot be re-used and must increment");
    this.#lastStreamId = streamId;
    const call = callOf(data);
    const method = this.#table.find(`/${call.service}/${call.method}`);
    if (method === undefined) {
      const known = this.#table.hasService(call.service);
      throw new BunkerdError("Unimplemented", known ? `method ${call.method}` : `service ${call.service}`);
    }
    if (this.#calls.size >= MAX_OPEN_CALLS) {
      throw new BunkerdError("ResourceExhausted", `connection has ${MAX_OPEN_CALLS} open calls`);
    }
    const running = serverCall(this.#streamOf(streamId), method, call, flags, this.#server);
    this.#calls.set(streamId, running);
    running.run();
  }

  #data(streamId: number, flags: number, data: Uint8Array): void {
    const call = this.#calls.get(streamId);
    if (call !== undefined) call.data(flags, data);
    // A call may end before its client knows: what only closes the stream is no mistake.
    else if (flags !== (FrameFlag.remoteClosed | FrameFlag.noData)) {
      throw invalid("StreamID is no longer active");
    }
  }

  #streamOf(streamId: number): CallStream {
    return {
      write: (type, flags, data) => this.#output.write({ streamId, type, flags }, data),
      room: () => (this.#output.full ? this.#output.drained() : undefined),
      pause: () => this.#pause(),
      resume: () => this.#resume(),
      ended: () => {
        this.#calls.delete(streamId);
        if (this.#draining && this.#calls.size === 0) this.#end();
      },
    };
  }

  /** The failure goes to the stream that caused it, which is over then. */
  #refuse(streamId: number, error: unknown): void {
    const call = this.#calls.get(streamId);
    if (call !== undefined) call.fail(error);
    else this.#output.write({ streamId, type: FrameType.response, flags: 0 }, encodeFailure(toStatus(error)));
  }

  #end(): void {
    this.#ended = true;
    this.#output.flush();
    this.#socket.end();
  }

  #pause(): void {
    if (this.#paused++ === 0) this.#socket.pause();
  }

  #resume(): void {
    if (--this.#paused === 0) this.#socket.resume();
  }
}

function callOf(data: Uint8Array): Call {
  try {
    return decodeCall(data);
  } catch (error) {
    throw invalid(`unmarshal request error: ${messageOf(error)}`);
  }
}

function invalid(message: string): BunkerdError {
  return new BunkerdError("InvalidArgument", message);
}
