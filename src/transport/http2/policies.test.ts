import { describe, expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { BandwidthEstimator } from "./bandwidth.ts";
import { ClosedStreams, Ending } from "./closed-streams.ts";
import { DEFAULT_HTTP2_LIMITS } from "./limits.ts";
import { PingPolicy } from "./ping-policy.ts";
import { RateLimit } from "./rate-limit.ts";

describe("RateLimit", () => {
  test("allows a burst, then what time brings, and saves no more than a burst", () => {
    let nowMs = 1000;
    const limit = new RateLimit(3, 10, () => nowMs);
    const taken = (): number => {
      let count = 0;
      while (limit.allow()) count += 1;
      return count;
    };
    expect(taken()).toBe(3);
    nowMs += 250;
    expect(taken()).toBe(2);
    nowMs += 60_000;
    expect(taken()).toBe(3);
    nowMs += 50;
    expect(taken()).toBe(0);
  });
});

describe("PingPolicy", () => {
  const { minPingIntervalMs, minIdlePingIntervalMs } = DEFAULT_HTTP2_LIMITS;

  test("two strikes are forgiven, the third is not", () => {
    const policy = new PingPolicy(DEFAULT_HTTP2_LIMITS);
    expect([0, 1, 2, 3].map((nowMs) => policy.allow(nowMs, 1))).toEqual([true, true, true, false]);
  });
  test("five minutes with a stream, two hours without", () => {
    for (const [streams, intervalMs] of [
      [1, minPingIntervalMs],
      [0, minIdlePingIntervalMs],
    ] as const) {
      const kept = new PingPolicy(DEFAULT_HTTP2_LIMITS);
      const broken = new PingPolicy(DEFAULT_HTTP2_LIMITS);
      const times = Array.from({ length: 20 }, (_, at) => at);
      expect(times.every((at) => kept.allow(at * intervalMs, streams))).toBe(true);
      expect(times.every((at) => broken.allow(at * (intervalMs - 1), streams))).toBe(false);
    }
  });
  test("what we send clears the strikes", () => {
    const policy = new PingPolicy(DEFAULT_HTTP2_LIMITS);
    for (let round = 0; round < 10; round++) {
      policy.sent();
      expect([0, 1, 2].map((at) => policy.allow(round * 10 + at, 1))).toEqual([true, true, true]);
    }
  });
});

describe("ClosedStreams", () => {
  test("remembers the last, tells never opened from forgotten", () => {
    const closed = new ClosedStreams();
    closed.add(1, Ending.ended);
    closed.add(5, Ending.resetByUs);
    closed.mark(5, Ending.resetByPeer);
    expect([1, 3, 5].map((id) => closed.endingOf(id))).toEqual([
      Ending.ended,
      Ending.skipped,
      Ending.resetByPeer,
    ]);
    for (let id = 7; id < 2007; id += 2) closed.add(id, Ending.ended);
    expect([1, 3, 2005].map((id) => closed.endingOf(id))).toEqual([
      Ending.forgotten,
      Ending.forgotten,
      Ending.ended,
    ]);
  });
});

describe("BandwidthEstimator", () => {
  const sample = (estimator: BandwidthEstimator, bytes: number, ms: number, windowBytes: number): number => {
    estimator.begin(0);
    estimator.received(bytes);
    return estimator.end(ms, windowBytes, 1_000_000);
  };
  test("a full window grows to twice what came, up to the limit", () => {
    const estimator = new BandwidthEstimator();
    expect(sample(estimator, 70_000, 1, 100_000)).toBe(140_000);
    expect(sample(estimator, 900_000, 1, 900_000)).toBe(1_000_000);
  });
  test("a window that is not filled, or slower than before, stays", () => {
    const estimator = new BandwidthEstimator();
    expect(sample(estimator, 60_000, 1, 100_000)).toBe(100_000);
    expect(sample(estimator, 90_000, 10, 100_000)).toBe(100_000);
    expect(estimator.end(20, 100_000, 1_000_000)).toBe(100_000);
  });
  test("one lucky sample does not forbid growth for ever", () => {
    const estimator = new BandwidthEstimator();
    sample(estimator, 100_000, 0.01, 200_000);
    let grown = 100_000;
    for (let round = 0; round < 100 && grown === 100_000; round++)
      grown = sample(estimator, 90_000, 1, 100_000);
    expect(grown).toBe(180_000);
  });
});

describe("docs/http2.md", () => {
  const UNITS: Readonly<Record<string, number>> = {
    "": 1,
    KiB: 1 << 10,
    MiB: 1 << 20,
    s: 1000,
    min: 60_000,
    h: 3_600_000,
  };
  const root = join(import.meta.dir, "../../..");
  const rows = [
    ...readFileSync(join(root, "docs/http2.md"), "utf8").matchAll(
      /^\| `(\w+)` \| ([\d,]+) ?(\w*) \| .+ \| ([\w-]+\.test\.ts)(?:: `(.+)`)? \|$/gm,
    ),
  ];
  test("tells each limit with its value", () => {
    const told = rows.map(([, name = "", value = "", unit = ""]) => [
      name,
      Number(value.replaceAll(",", "")) * (UNITS[unit] ?? Number.NaN),
    ]);
    expect(Object.fromEntries(told)).toEqual({ ...DEFAULT_HTTP2_LIMITS });
  });
  test("and the test of it, which names it", () => {
    for (const [, name = "", , , file = "", title = name] of rows) {
      const folders = [import.meta.dir, join(root, "test/conformance/http2")];
      const path = folders.map((folder) => join(folder, file)).find((one) => existsSync(one));
      expect([name, path !== undefined && readFileSync(path, "utf8").includes(title)]).toEqual([name, true]);
    }
  });
});
