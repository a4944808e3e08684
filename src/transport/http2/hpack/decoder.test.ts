import { describe, expect, test } from "bun:test";
import { CompressionError, HpackDecoder } from "./decoder.ts";
import { encodeFields } from "./encoder.ts";

function decoder(maxTableBytes = 4096, maxListBytes = 1 << 20) {
  let built = 0;
  const hpack = new HpackDecoder({ maxTableBytes, maxListBytes }, (fields, oversize) => {
    built += 1;
    return { lines: fields.map(({ name, value }) => `${name}: ${value}`), oversize };
  });
  return { hpack, built: () => built, decode: (hex: string) => hpack.decode(Buffer.from(hex, "hex")).lines };
}

const AUTHORITY = [":method: GET", ":scheme: http", ":path: /", ":authority: www.example.com"];

describe("RFC 7541 appendix C", () => {
  test("C.2 each representation", () => {
    expect(decoder().decode("400a637573746f6d2d6b65790d637573746f6d2d686561646572")).toEqual([
      "custom-key: custom-header",
    ]);
    expect(decoder().decode("040c2f73616d706c652f70617468")).toEqual([":path: /sample/path"]);
    expect(decoder().decode("100870617373776f726406736563726574")).toEqual(["password: secret"]);
    expect(decoder().decode("82")).toEqual([":method: GET"]);
  });
  for (const [name, blocks] of [
    [
      "C.3 requests",
      [
        "828684410f7777772e6578616d706c652e636f6d",
        "828684be58086e6f2d6361636865",
        "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565",
      ],
    ],
    [
      "C.4 requests in Huffman code",
      [
        "828684418cf1e3c2e5f23a6ba0ab90f4ff",
        "828684be5886a8eb10649cbf",
        "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
      ],
    ],
  ] as const) {
    test(name, () => {
      const { hpack, decode } = decoder();
      expect(decode(blocks[0])).toEqual(AUTHORITY);
      expect(hpack.tableBytes).toBe(57);
      expect(decode(blocks[1])).toEqual([...AUTHORITY, "cache-control: no-cache"]);
      expect(hpack.tableBytes).toBe(110);
      expect(decode(blocks[2])).toEqual([
        ":method: GET",
        ":scheme: https",
        ":path: /index.html",
        ":authority: www.example.com",
        "custom-key: custom-value",
      ]);
      expect(hpack.tableBytes).toBe(164);
    });
  }
  test("C.6 responses in Huffman code, a table of 256 bytes that evicts", () => {
    const { hpack, decode } = decoder(256);
    const [date, place] = ["date: Mon, 21 Oct 2013 20:13:21 GMT", "location: https://www.example.com"];
    expect(
      decode(
        "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8e9ae82ae43d3",
      ),
    ).toEqual([":status: 302", "cache-control: private", date, place]);
    expect(hpack.tableBytes).toBe(222);
    expect(decode("4883640effc1c0bf")).toEqual([":status: 307", "cache-control: private", date, place]);
    expect(hpack.tableBytes).toBe(222);
    expect(
      decode(
        "88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007",
      ).at(-1),
    ).toBe("set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1");
    expect(hpack.tableBytes).toBe(215);
  });
});

describe("repeated blocks", () => {
  test("are decoded once while the table stays, again when it has changed", () => {
    const { built, decode } = decoder();
    decode("828684418cf1e3c2e5f23a6ba0ab90f4ff");
    const known = built();
    for (let again = 0; again < 5; again++) expect(decode("828684be")).toEqual(AUTHORITY);
    expect(built()).toBe(known + 1);
    expect(decode("828684be5886a8eb10649cbf").length).toBe(5);
    expect(decode("828684be").at(-1)).toBe("cache-control: no-cache");
    expect(built()).toBe(known + 3);
  });
});

describe("limits", () => {
  test("fields over the list's limit are dropped, and still counted by the table", () => {
    const { hpack } = decoder(4096, 100);
    const block = Buffer.from("400a637573746f6d2d6b65790d637573746f6d2d686561646572", "hex");
    expect(hpack.decode(Buffer.concat([block, block]))).toEqual({
      lines: ["custom-key: custom-header"],
      oversize: true,
    });
    expect(hpack.tableBytes).toBe(110);
  });
  test("a table of none keeps nothing", () => {
    const { hpack, decode } = decoder(0);
    decode("400a637573746f6d2d6b65790d637573746f6d2d686561646572");
    expect(hpack.tableBytes).toBe(0);
    expect(() => decode("be")).toThrow(CompressionError);
    expect(() => decode("21")).toThrow(CompressionError);
  });
});

test("what the encoder writes, the decoder reads", () => {
  const fields = [
    [":status", "200"],
    [":status", "418"],
    ["content-type", "application/grpc"],
    ["grpc-message", 'container "web": not found'],
    ["x-bytes", String.fromCharCode(...Array.from({ length: 256 }, (_, code) => code))],
    ["x-long", "a".repeat(10_000)],
    ["x-empty", ""],
  ] as const;
  const { hpack } = decoder();
  expect(hpack.decode(Buffer.from(encodeFields(fields))).lines).toEqual(
    fields.map(([name, value]) => `${name}: ${value}`),
  );
  expect(hpack.tableBytes).toBe(0);
  expect(Buffer.from(encodeFields([["x", "語"]])).toString("hex")).toContain("e8aa9e");
});
