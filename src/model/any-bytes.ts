import type { Any } from "@bufbuild/protobuf/wkt";
import { WireWriter } from "../lib/wire.ts";

const writer = new WireWriter();

/** An Any's bytes, in the order in which every writer of it puts them. */
export function encodeAny({ typeUrl, value }: Any): Uint8Array {
  writer.begin();
  if (typeUrl !== "") writer.bytes(1, Buffer.from(typeUrl));
  if (value.length > 0) writer.bytes(2, value);
  return new Uint8Array(writer.written());
}
