import { describe, expect, test } from "bun:test";
import { LogLines } from "./log-lines.ts";

const TIME = 1_767_225_600_000_000_123n;
const AT = "2026-01-01T00:00:00.000000123Z";

function format(maxLineBytes: number, ...chunks: string[]): string {
  const lines = new LogLines("stdout", maxLineBytes);
  const written = chunks.map((chunk) => lines.add(Buffer.from(chunk), TIME));
  return Buffer.concat([...written, lines.finish(TIME)])
    .toString()
    .replaceAll(`${AT} stdout `, "");
}

/** How containerd's logger cuts, said as simply as it can be: the oracle for random input. */
function expected(maxLineBytes: number, text: string): string {
  const parts = text.split("\n");
  const rest = parts.pop() ?? "";
  const lines = [
    ...parts.map((part) => [part.replace(/\r$/, ""), "F"] as const),
    ...(rest === "" ? [] : [[rest, "P"] as const]),
  ];
  return lines
    .flatMap(([line, tag]) => {
      const pieces: string[] = [];
      let left = line;
      for (; left.length > maxLineBytes; left = left.slice(maxLineBytes))
        pieces.push(`P ${left.slice(0, maxLineBytes)}\n`);
      return [...pieces, `${tag} ${left}\n`];
    })
    .join("");
}

describe("LogLines", () => {
  test("a line carries time, stream and tag", () => {
    const lines = new LogLines("stderr", 10);
    expect(Buffer.from(lines.add(Buffer.from("a\nb"), TIME)).toString()).toBe(`${AT} stderr F a\n`);
    expect(Buffer.from(lines.finish(TIME)).toString()).toBe(`${AT} stderr P b\n`);
  });

  test.each([
    ["empty lines", ["\n\n"], "F \nF \n"],
    ["a line in three chunks", ["a", "b", "c\n"], "F abc\n"],
    ["as long as the limit", ["12345678\n"], "F 12345678\n"],
    ["one more", ["123456789\n"], "P 12345678\nF 9\n"],
    ["two limits", ["1234567812345678\n"], "P 12345678\nF 12345678\n"],
    ["a carriage return is no part of the limit", ["12345678\r", "\n"], "F 12345678\n"],
    ["a carriage return alone", ["\r\n"], "F \n"],
    ["one within a line stays", ["a\rb\n"], "F a\rb\n"],
    ["no newline at the end", ["123456789"], "P 12345678\nP 9\n"],
    ["nothing", [], ""],
  ] as const)("%s", (_name, chunks, shows) => {
    expect(format(8, ...chunks)).toBe(shows);
  });

  test("without a limit a line stays whole", () => {
    const line = "x".repeat(3 << 20);
    expect(format(-1, line.slice(0, 70_000), line.slice(70_000), "\n")).toBe(`F ${line}\n`);
    expect(format(0, `${line}\n`)).toBe(`F ${line}\n`);
  });

  test("without a limit what has no newline is written all the same, from 16 MiB on", () => {
    const lines = new LogLines("stdout", -1);
    const chunk = new Uint8Array(1 << 20).fill(65);
    let written = 0;
    for (let round = 0; round < 20; round++) written += lines.add(chunk, TIME).length;
    expect(written).toBeGreaterThan(16 << 20);
  });

  test("however the output is cut into chunks, the lines are the same", () => {
    const letters = ["a", "b", "\n", "\r"];
    for (let round = 0; round < 2000; round++) {
      const text = Array.from({ length: round % 40 }, () => letters[Math.floor(Math.random() * 4)]).join("");
      const chunks: string[] = [];
      for (let at = 0; at < text.length; ) {
        const size = 1 + Math.floor(Math.random() * 7);
        chunks.push(text.slice(at, at + size));
        at += size;
      }
      for (const limit of [3, 8]) expect(format(limit, ...chunks)).toBe(expected(limit, text));
    }
  });
});
