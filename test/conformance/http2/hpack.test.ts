/** RFC 7541 on the wire: every representation, and what is a COMPRESSION_ERROR. h2spec's `hpack` and `generic/5`. */
import { describe, expect, test } from "bun:test";
import { breaks, served } from "./cases.ts";
import { bodyOf, E, F, grpcRequest, integer, RawClient, request, settings, T } from "./raw-client.ts";
import { startEngine } from "./server.ts";

const GET = request("/");
type Parts = readonly (string | readonly number[] | Buffer)[];
const bytes = (...parts: Parts): Buffer =>
  Buffer.concat(
    parts.map((part) => (typeof part === "string" ? Buffer.from(part, "hex") : Buffer.from(part))),
  );

/** `x-size: 5` behind the request, in another representation each, makes an answer of five bytes. */
const NAME = Buffer.from("x-size");
/** Huffman code of "x-size" and "5". */
const HUFFMAN_NAME = "85f2b20decbf";
const HUFFMAN_VALUE = "816f";

describe("representations", () => {
  const name = bytes([6], NAME);
  const value = bytes([1], [0x35]);
  for (const [what, field] of [
    ["literal with incremental indexing, new name (6.2.1)", bytes([0x40], name, value)],
    ["the same, Huffman code (6.2.1)", bytes([0x40], HUFFMAN_NAME, HUFFMAN_VALUE)],
    ["literal without indexing, new name (6.2.2)", bytes([0x00], name, value)],
    ["the same, Huffman code (6.2.2)", bytes([0x00], HUFFMAN_NAME, HUFFMAN_VALUE)],
    ["literal never indexed, new name (6.2.3)", bytes([0x10], name, value)],
    ["the same, Huffman code (6.2.3)", bytes([0x10], HUFFMAN_NAME, HUFFMAN_VALUE)],
    [
      "incremental, then indexed (6.1)",
      bytes([0x40], bytes([6], Buffer.from("x-none")), value, [0x40], name, value),
    ],
    [
      "incremental, its name again without indexing",
      bytes([0x40], name, bytes([1], [0x37]), [0x0f, 62 - 15], value),
    ],
  ] as const) {
    test(what, () =>
      served(async (client) => {
        client.headers(1, bytes(GET, field), F.endStream);
        expect(bodyOf(await client.answer(1)).length).toBe(5);
      }),
    );
  }
  for (const [what, field] of [
    ["literal with incremental indexing, indexed name (6.2.1)", bytes([0x40 | 28], value)],
    ["the same, Huffman code (6.2.1, indexed name)", bytes([0x40 | 28], HUFFMAN_VALUE)],
    ["literal without indexing, indexed name (6.2.2)", bytes([0x0f, 28 - 15], value)],
    ["the same, Huffman code (6.2.2, indexed name)", bytes([0x0f, 28 - 15], HUFFMAN_VALUE)],
    ["literal never indexed, indexed name (6.2.3)", bytes([0x1f, 28 - 15], value)],
    ["the same, Huffman code (6.2.3, indexed name)", bytes([0x1f, 28 - 15], HUFFMAN_VALUE)],
  ] as const) {
    // `content-length: 5`, which a body may not belie.
    test(what, () =>
      served(async (client) => {
        client.headers(1, bytes(GET, field));
        client.frame(T.data, F.endStream, 1, "12345");
        expect(bodyOf(await client.answer(1)).toString()).toBe("12345");
        client.headers(3, bytes(GET, field));
        client.frame(T.data, F.endStream, 3, "1234");
        expect(await client.streamError(3)).toBe(E.protocol);
      }),
    );
  }
  test("indexed names and values of the static table", () =>
    served(async (client) => {
      // :method POST, :scheme http, :path /, :authority without indexing, then the same never indexed.
      client.headers(
        1,
        bytes([0x83, 0x86, 0x84, 0x01, 1, 0x61], [0x1f, 0x00, 1, 0x62], [0x0f, 13, 1, 0x30]),
        F.endStream,
      );
      expect((await client.answer(1)).at(0)?.type).toBe(T.headers);
    }));
  test("a repeated block means what it means when it comes, not what it meant before", () =>
    served(async (client) => {
      const add = (size: number) => bytes(GET, [0x40], bytes([6], NAME), bytes([1], [0x30 + size]));
      const newest = bytes(GET, [0x80 | 62]);
      for (const [id, sent, expected] of [
        [1, add(3), 3],
        [3, newest, 3],
        [5, newest, 3],
        [7, add(5), 5],
        [9, newest, 5],
        [11, newest, 5],
        [13, bytes([0x20, 0x3f, 0xe1, 0x1f], add(7)), 7],
        [15, newest, 7],
      ] as const) {
        client.headers(id, sent, F.endStream);
        expect(bodyOf(await client.answer(id)).length).toBe(expected);
      }
    }));
});

describe("what cannot be decoded", () => {
  const broken = (name: string, ...parts: Parts): void =>
    breaks(name, E.compression, (client) => client.headers(1, bytes(GET, ...parts), F.endStream));
  broken("2.3.3 an index beyond both tables", [0x80 | 70]);
  broken("2.3.3 a name at such an index", [0x40 | 0x3f, 7], bytes([1], [0x78]));
  broken("6.1 index 0", [0x80]);
  broken("5.2 padding longer than 7 bits", [0x00, 0x85], "f2b24a87ff", [0x84], "fffe7fff");
  broken("5.2 padding of zeros", [0x00, 1, 0x78, 0x81, 0x68]);
  broken("5.2 the EOS symbol", [0x00, 1, 0x78, 0x84], "ffffffff");
  broken("5.2 a string longer than the block", [0x00, 1, 0x78, 20, 0x79]);
  broken("5.1 an integer without an end", [0x00, 1, 0x78, 0x7f, 0xff]);
  broken("5.1 an integer beyond all limits", [0x00, 1, 0x78, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f]);
  broken("a literal without its value", [0x00, 1, 0x78]);
  broken("a literal without its name", [0x00]);
  broken("4.2 a size update behind a field", [0x20]);
  breaks("6.3 a size update over SETTINGS_HEADER_TABLE_SIZE", E.compression, (client) =>
    client.headers(1, bytes(integer(0x20, 5, 4097), GET), F.endStream),
  );
});

describe("dynamic table", () => {
  test("4.3 what a size update evicts is gone, and what comes later is kept", () =>
    served(async (client) => {
      const field = bytes([0x40], bytes([6], NAME), bytes([1], [0x34]));
      client.headers(1, bytes(GET, field), F.endStream);
      await client.answer(1);
      client.headers(3, bytes([0x20], integer(0x20, 5, 4096), GET, field, [0x80 | 62]), F.endStream);
      await client.answer(3);
      client.headers(5, bytes(GET, [0x80 | 62]), F.endStream);
      expect(bodyOf(await client.answer(5)).length).toBe(4);
      client.headers(7, bytes(GET, [0x80 | 63]), F.endStream);
      expect(await client.connectionError()).toMatchObject({ code: E.compression });
    }));
  test("4.4 a field larger than the table empties it", () =>
    served(async (client) => {
      client.headers(1, bytes(GET, [0x40], bytes([6], NAME), bytes([1], [0x34])), F.endStream);
      await client.answer(1);
      const large = Buffer.alloc(4096, 0x61);
      client.headers(3, bytes(GET, [0x40, 1, 0x78], integer(0, 7, large.length), large), F.endStream);
      await client.answer(3);
      client.headers(5, bytes(GET, [0x80 | 62]), F.endStream);
      expect(await client.connectionError()).toMatchObject({ code: E.compression });
    }));
  test("entries are evicted oldest first as new ones come", () =>
    served(async (client) => {
      // 38 + 1 + 32 = 39 bytes an entry of "x-size: N": 105 fit into 4,096.
      for (let at = 0; at < 300; at++) {
        const value = Buffer.from(String(at % 10));
        client.headers(2 * at + 1, bytes(GET, [0x40], bytes([6], NAME), bytes([1], value)), F.endStream);
      }
      client.headers(601, bytes(GET, integer(0x80, 7, 62 + 104)), F.endStream);
      // The newest is 299; 104 before it is 195.
      expect(bodyOf(await client.answer(601)).length).toBe(5);
      client.headers(603, bytes(GET, integer(0x80, 7, 62 + 105)), F.endStream);
      expect(await client.connectionError()).toMatchObject({ code: E.compression });
    }));
});

describe("what we send", () => {
  test("4.2 a peer that shrinks its table is told once that we use none", async () => {
    await using server = await startEngine();
    await using client = await RawClient.open(server.path, [[1, 100]]);
    client.headers(1, GET, F.endStream);
    expect((await client.answer(1))[0]?.payload[0]).toBe(0x20);
    client.headers(3, GET, F.endStream);
    expect((await client.answer(3))[0]?.payload[0]).toBe(0x88);
    client.frame(
      T.settings,
      0,
      0,
      settings([
        [1, 4096],
        [1, 0],
      ]),
    );
    client.headers(5, GET, F.endStream);
    expect((await client.answer(5))[0]?.payload[0]).toBe(0x20);
  });
  test("headers larger than a frame go on in CONTINUATION", () =>
    served(async (client, server) => {
      client.headers(1, grpcRequest("/hold"), F.endStream);
      await client.settle();
      server.streams[0]?.end([
        ["grpc-status", "0"],
        ["x-long", "é~".repeat(20_000)],
      ]);
      const [first, ...rest] = [await client.next(), await client.next(), await client.next()];
      expect(first).toMatchObject({ type: T.headers, flags: F.endStream });
      expect(rest.map((got) => [got?.type, got?.flags])).toEqual([
        [T.continuation, 0],
        [T.continuation, F.endHeaders],
      ]);
      expect(first?.payload.length).toBe(16_384);
    }));
});
