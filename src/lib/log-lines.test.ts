import { describe, expect, test } from "bun:test";
import { createLogger, type LineLoggerOptions } from "./log-lines.ts";

function recorder(options: LineLoggerOptions = {}) {
  const lines: string[] = [];
  const now = () => new Date("2026-01-02T03:04:05.678Z");
  return { lines, logger: createLogger({ write: (line) => lines.push(line), now, ...options }) };
}

describe("text", () => {
  test("is what logrus writes", () => {
    const { lines, logger } = recorder();
    logger.info("starting bunkerd", {
      version: "0.1.0",
      id: "a b",
      error: new Error('no "x"'),
      gone: undefined,
    });
    logger.warn("plain");
    expect(lines).toEqual([
      'time="2026-01-02T03:04:05.678000000Z" level=info msg="starting bunkerd" error="no \\"x\\"" id="a b" version=0.1.0\n',
      'time="2026-01-02T03:04:05.678000000Z" level=warning msg=plain\n',
    ]);
  });

  test("hostile text stays on its line and cannot fake a field", () => {
    const { lines, logger } = recorder();
    logger.error("a\nlevel=info", { id: '"\u0000\u001b[2J\u009b\u2028', msg: "mine", empty: "" });
    expect(lines[0]).toEndWith(
      'level=error msg="a\\nlevel=info" empty="" id="\\"\\u0000\\u001b[2J\\u009b\\u2028" fields.msg=mine\n',
    );
    expect(lines[0]?.split("\n").length).toBe(2);
  });
});

test("JSON is one object a line", () => {
  const { lines, logger } = recorder({ format: "json" });
  logger.with({ namespace: "default" }).info("created", { size: 5n, level: 3, list: [1n] });
  expect(JSON.parse(lines[0] ?? "")).toEqual({
    level: "info",
    msg: "created",
    time: "2026-01-02T03:04:05.678000000Z",
    namespace: "default",
    size: "5",
    "fields.level": 3,
    list: ["1"],
  });
});

test("the level changes for every logger at once", () => {
  const { lines, logger } = recorder();
  const child = logger.with({ part: "x" });
  child.debug("unseen");
  logger.level = "debug";
  child.debug("seen");
  logger.level = "error";
  child.warn("unseen");
  expect(lines.length).toBe(1);
  expect(lines[0]).toContain("msg=seen part=x");
});

test("what cannot be written or told is counted, not thrown", () => {
  const broken = (): never => {
    throw Object.assign(new Error("EPIPE"), { code: "EPIPE" });
  };
  const logger = createLogger({ write: broken });
  const circle: { self?: unknown } = {};
  circle.self = circle;
  logger.info("a");
  logger.info("b", { circle });
  expect(logger.lostLines).toBe(2);
});
