import { SpdyError } from "./frames.ts";

/** Names in lower case; several values of one name are separated by NUL. */
export type SpdyHeaders = ReadonlyMap<string, string>;

/** Of all headers of a frame, decompressed. */
const MAX_BLOCK_BYTES = 64 << 10;
const MAX_HEADERS = 100;
/** How far back deflate may refer. */
const WINDOW_BYTES = 32 << 10;
const ZLIB_HEAD_BYTES = 2;
const DICTIONARY_ID_BYTES = 4;
const HAS_DICTIONARY = 0x20;
const METHOD_DEFLATE = 8;

/** An empty stored block: Go's inflate hands out what it has only when it meets one. */
const SYNC_MARK = Uint8Array.of(0, 0, 0, 0xff, 0xff);

/** Length-prefixed at the head of the dictionary that both sides know (Draft 3.1, section 2.6.10.1). */
const DICTIONARY_WORDS =
  "options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age allow authorization cache-control connection content-base content-encoding content-language content-length content-location content-md5 content-range content-type date etag expect expires from host if-match if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade user-agent vary via warning www-authenticate method get status 200_OK version HTTP/1.1 url public set-cookie keep-alive origin";

/** What follows them. */
const DICTIONARY_REST =
  "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505" +
  "203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized" +
  "403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable" +
  "Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT" +
  "chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain," +
  "text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.";

export const DICTIONARY: Uint8Array = Buffer.concat([
  ...DICTIONARY_WORDS.split(" ").map((word) => lengthPrefixed(word.replace("_", " "))),
  Buffer.from(DICTIONARY_REST, "latin1"),
]);

/**
 * Decompresses the header blocks of one direction of a connection: one zlib stream, flushed to a whole byte after each block. A block is
 * inflated by itself, with what came before it as the dictionary: bounded, and done in one turn.
 */
export class HeaderDecoder {
  #window: Uint8Array = DICTIONARY;
  #begun = false;

  /** @throws SpdyError */
  decode(compressed: Uint8Array): SpdyHeaders {
    const body = this.#begun ? compressed : compressed.subarray(this.#headBytes(compressed));
    this.#begun = true;
    const block = this.#inflate(body);
    const history = Buffer.concat([this.#window, block]);
    this.#window = history.subarray(Math.max(0, history.length - WINDOW_BYTES));
    return parse(block);
  }

  /** RFC 1950, section 2.2. */
  #headBytes(compressed: Uint8Array): number {
    const [method = 0, flags = 0] = compressed;
    if ((method & 0x0f) !== METHOD_DEFLATE || (method * 256 + flags) % 31 !== 0)
      throw new SpdyError("headers are no zlib stream");
    return ZLIB_HEAD_BYTES + ((flags & HAS_DICTIONARY) === 0 ? 0 : DICTIONARY_ID_BYTES);
  }

  #inflate(body: Uint8Array): Buffer {
    const { inflateRawSync, constants } = process.getBuiltinModule("node:zlib");
    try {
      return inflateRawSync(body, {
        dictionary: this.#window,
        finishFlush: constants.Z_SYNC_FLUSH,
        maxOutputLength: MAX_BLOCK_BYTES,
      });
    } catch (error) {
      throw new SpdyError(`headers do not decompress: ${String(error)}`);
    }
  }
}

/** Writes header blocks as one zlib stream of stored blocks: what we send is too small to gain by compression. */
export class HeaderEncoder {
  #begun = false;

  encode(headers: SpdyHeaders): Buffer {
    const count = Buffer.alloc(4);
    count.writeUInt32BE(headers.size);
    const fields = [...headers].flatMap(([name, value]) => [lengthPrefixed(name), lengthPrefixed(value)]);
    const block = Buffer.concat([count, ...fields]);
    // Deflate, window of 32 KiB; no dictionary.
    const head = this.#begun ? [] : [Buffer.of(0x78, 0x01)];
    this.#begun = true;
    const stored = Buffer.alloc(5);
    stored.writeUInt16LE(block.length, 1);
    stored.writeUInt16LE(~block.length & 0xffff, 3);
    return Buffer.concat([...head, stored, block, SYNC_MARK]);
  }
}

function lengthPrefixed(text: string): Buffer {
  const bytes = Buffer.from(text, "latin1");
  const length = Buffer.alloc(4);
  length.writeUInt32BE(bytes.length);
  return Buffer.concat([length, bytes]);
}

function parse(block: Buffer): SpdyHeaders {
  let at = 0;
  const number = (): number => {
    if (at + 4 > block.length) throw new SpdyError("header block is cut off");
    at += 4;
    return block.readUInt32BE(at - 4);
  };
  const text = (): string => {
    const length = number();
    if (length > block.length - at) throw new SpdyError("header block is cut off");
    at += length;
    return block.toString("latin1", at - length, at);
  };
  const count = number();
  if (count > MAX_HEADERS) throw new SpdyError(`${count} headers are too many`);
  const headers = new Map<string, string>();
  for (let index = 0; index < count; index++) {
    const name = text().toLowerCase();
    if (headers.has(name)) throw new SpdyError("a header comes twice");
    headers.set(name, text());
  }
  return headers;
}
