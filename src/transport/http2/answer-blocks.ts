import type { HeaderList } from "../grpc/stream.ts";
import { encodeFields } from "./hpack/encoder.ts";

/**
 * Encoded header blocks of lists, by their identity: an answer of the daemon is made of a few constant ones. A list stands for
 * different blocks as headers (with `:status`) and as trailers.
 */
class BlockMap {
  readonly #encode: (list: HeaderList) => Uint8Array;
  readonly #known = new WeakMap<HeaderList, Uint8Array>();
  #lastList: HeaderList | undefined;
  #lastBlock: Uint8Array = new Uint8Array(0);

  constructor(encode: (list: HeaderList) => Uint8Array) {
    this.#encode = encode;
  }

  get(list: HeaderList): Uint8Array {
    if (list === this.#lastList) return this.#lastBlock;
    let block = this.#known.get(list);
    if (block === undefined) {
      block = this.#encode(list);
      this.#known.set(list, block);
    }
    this.#lastList = list;
    this.#lastBlock = block;
    return block;
  }
}

const OK_STATUS = [":status", "200"] as const;

const headerBlocks = new BlockMap((list) =>
  encodeFields(list[0]?.[0] === ":status" ? list : [OK_STATUS, ...list]),
);
const trailerBlocks = new BlockMap((list) => encodeFields(list.filter(([name]) => name !== ":status")));

/** The block of a response's header section; status 200 if the list has none. */
export function headerBlockOf(list: HeaderList): Uint8Array {
  return headerBlocks.get(list);
}

/** The block of a response's trailers. */
export function trailerBlockOf(list: HeaderList): Uint8Array {
  return trailerBlocks.get(list);
}
