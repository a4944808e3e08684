/** The messages of the matrix of clients: issue 4's sizes, and one byte over the limit. */
import { type Behaviour, encodePayload, type Payload } from "../grpc/service.ts";

export const MAX_BYTES = 16 << 20;

/** Of whole messages, so that the largest is just allowed. */
export const SIZES: readonly number[] = [0, 1, (16 << 10) - 1, 1 << 20, MAX_BYTES];

export const OVER_BYTES = MAX_BYTES + 1;

/** A message with `more` in it whose encoding has `bytes` bytes; of 1 byte there is none, so that is its data. */
export function payloadOf(bytes: number, more: Partial<Payload> = {}): Uint8Array {
  if (bytes <= 1) return encodePayload({ ...more, data: new Uint8Array(bytes).fill(7) });
  for (let length = bytes - 12; length < bytes; length++) {
    const encoded = encodePayload({ ...more, data: new Uint8Array(length).fill(7) });
    if (encoded.length === bytes) return encoded;
  }
  throw new Error(`no payload has ${bytes} bytes`);
}

/** What the service does with a message that says "over": it answers one byte more than may leave. */
export const over: Behaviour = (request) => {
  request.text = "";
  request.data = new Uint8Array(OVER_BYTES - 5);
};
