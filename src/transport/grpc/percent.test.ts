import { expect, test } from "bun:test";
import { encodeStatusMessage } from "./percent.ts";

test("printable ASCII stays, everything else and % is encoded by UTF-8 byte", () => {
  expect(encodeStatusMessage('container "web": not found ~!', 1000)).toBe('container "web": not found ~!');
  expect(encodeStatusMessage("100% \t\n\u007f", 1000)).toBe("100%25 %09%0A%7F");
  expect(encodeStatusMessage("é€😀", 1000)).toBe("%C3%A9%E2%82%AC%F0%9F%98%80");
  expect(decodeURIComponent(encodeStatusMessage("a\u0000b%41", 1000))).toBe("a\u0000b%41");
});

test("spaces at the ends are encoded, those within stay", () => {
  expect(encodeStatusMessage(" a b ", 1000)).toBe("%20a b%20");
  expect(encodeStatusMessage("  ", 1000)).toBe("%20%20");
});

test("half a surrogate pair becomes the replacement character", () => {
  expect(encodeStatusMessage("\ud800x", 1000)).toBe("%EF%BF%BDx");
});

test("a long message is cut between characters", () => {
  expect(encodeStatusMessage("a".repeat(10), 10)).toBe("a".repeat(10));
  expect(encodeStatusMessage("a".repeat(11), 10)).toBe("aaaaaaa...");
  expect(encodeStatusMessage("éééé", 12)).toBe("%C3%A9...");
  expect(encodeStatusMessage("x".repeat(2 << 20), 8192)).toHaveLength(8192);
});
