import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { type Any, AnySchema } from "@bufbuild/protobuf/wkt";
import { DataSchema, WindowUpdateSchema } from "#gen/containerd/types/transfer/streaming_pb.ts";
import { fail, quote } from "../model/errors.ts";
import type { MessageStream } from "../model/streams.ts";

/*
 * Bytes over a client's stream (containerd `core/transfer/streaming`): pieces in messages of Data, as many bytes as the other side has allowed by
 * messages of WindowUpdate.
 */

/** The reference's, each a message. */
const MAX_PIECE_BYTES = 32 << 10;
/** More than the reference's two pieces: each grant costs a turn of both processes. */
const WINDOW_BYTES = 32 * MAX_PIECE_BYTES;

/** The bytes that the client sends, in pieces, until it sends no more. @throws Canceled when it has gone, InvalidArgument */
export async function* receiveBytes(stream: MessageStream): AsyncGenerator<Buffer> {
  let allowed = 0;
  try {
    for (;;) {
      if (allowed < WINDOW_BYTES) {
        // Not waited for: the client may have sent its last byte and be gone.
        void stream.send(windowUpdate(WINDOW_BYTES)).catch(() => undefined);
        allowed += WINDOW_BYTES;
      }
      const message = await stream.receive();
      if (message === undefined) return;
      if (nameOf(message) !== DataSchema.typeName) continue;
      const { data } = decode(() => fromBinary(DataSchema, message.value), message);
      allowed -= data.length;
      if (data.length > 0) yield Buffer.from(data.buffer, data.byteOffset, data.byteLength);
    }
  } finally {
    stream.close();
  }
}

export interface ByteSender {
  /** Resolves when the transport has taken them. @throws Canceled when the client has gone */
  write(bytes: Uint8Array): Promise<void>;
  /** There is no more. */
  close(): void;
}

export function sendBytes(stream: MessageStream): ByteSender {
  let allowed = 0;
  const write = async (bytes: Uint8Array): Promise<void> => {
    for (let at = 0; at < bytes.length; ) {
      while (allowed <= 0) allowed += await receiveWindow(stream);
      const end = Math.min(at + MAX_PIECE_BYTES, at + allowed, bytes.length);
      await stream.send(dataMessage(bytes.subarray(at, end)));
      allowed -= end - at;
      at = end;
    }
  };
  return { write, close: () => stream.close() };
}

/** @throws Canceled when the client takes no more */
async function receiveWindow(stream: MessageStream): Promise<number> {
  for (;;) {
    const message = await stream.receive();
    if (message === undefined) throw fail("Canceled", "the client takes no more bytes");
    if (nameOf(message) !== WindowUpdateSchema.typeName) continue;
    return decode(() => fromBinary(WindowUpdateSchema, message.value), message).update;
  }
}

function windowUpdate(update: number): Any {
  return create(AnySchema, {
    typeUrl: WindowUpdateSchema.typeName,
    value: toBinary(WindowUpdateSchema, create(WindowUpdateSchema, { update })),
  });
}

function dataMessage(data: Uint8Array): Any {
  return create(AnySchema, {
    typeUrl: DataSchema.typeName,
    value: toBinary(DataSchema, create(DataSchema, { data })),
  });
}

function nameOf({ typeUrl }: Any): string {
  return typeUrl.slice(typeUrl.lastIndexOf("/") + 1);
}

function decode<T>(read: () => T, { typeUrl }: Any): T {
  try {
    return read();
  } catch (cause) {
    throw fail("InvalidArgument", `malformed ${quote(typeUrl)} on a stream`, { cause });
  }
}
