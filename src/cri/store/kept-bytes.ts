import type { DescMessage, MessageShape } from "@bufbuild/protobuf";
import { toBinary } from "@bufbuild/protobuf";
import { joined, WireWriter } from "../../lib/wire.ts";

const writer = new WireWriter();

/**
 * An object's bytes as a field of an answer, made when first asked for and kept as long as what they were made from is the same objects: status and
 * metadata are replaced, never changed in place.
 */
export class KeptBytes {
  #sources: readonly unknown[] = [];
  #bytes: Uint8Array | undefined;

  get(sources: readonly unknown[], make: () => Uint8Array): Uint8Array {
    const isFresh = sources.every((source, at) => source === this.#sources[at]);
    if (this.#bytes === undefined || !isFresh) {
      this.#bytes = make();
      this.#sources = sources;
    }
    return this.#bytes;
  }
}

/** The answer of a list: its fields joined, kept as long as the list has the same fields in the same order. */
export class KeptAnswer {
  #fields: readonly Uint8Array[] = [];
  #bytes: Uint8Array = new Uint8Array();

  get(fields: readonly Uint8Array[]): Uint8Array {
    const known = this.#fields;
    const isFresh = fields.length === known.length && fields.every((field, at) => field === known[at]);
    if (!isFresh) {
      this.#bytes = joined(fields);
      this.#fields = fields;
    }
    return this.#bytes;
  }
}

/** A message with tag and length, as field `number` of another. */
export function framed<S extends DescMessage>(
  number: number,
  schema: S,
  message: MessageShape<S>,
): Uint8Array {
  writer.begin();
  writer.raw(toBinary(schema, message));
  return writer.takeFramed(number);
}
