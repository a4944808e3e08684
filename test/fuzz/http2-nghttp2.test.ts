/**
 * Random connections through the engine and through nghttp2, which is what Node speaks HTTP/2 by: both refuse, or both answer the same
 * streams. Where they do not, {@link EXPLAINED} says why, with the section of the RFC.
 */
import { expect, test } from "bun:test";
import { join } from "node:path";
import { type ExchangeOptions, exchange, framesOf, type SentFrame } from "../support/engine-wire.ts";
import { start } from "../support/processes.ts";
import { randomFrom, testSeed } from "../support/random.ts";
import { randomConnection } from "../support/random-http2.ts";

const INPUTS = process.env["BUNKERD_TEST_LONG"] === undefined ? 3_000 : 1_000_000;
const BATCH = 500;
const REFERENCE = join(import.meta.dir, "..", "support", "nghttp2-reference.mjs");
/** Where limits are each server's to choose, those of nghttp2. */
const OPTIONS: ExchangeOptions = {
  late: true,
  limits: { maxConcurrentStreams: 100, minPingIntervalMs: 0, minIdlePingIntervalMs: 0 },
};

const [DATA, HEADERS, PRIORITY, RESET, SETTINGS] = [0, 1, 2, 3, 4];
const [PING, GOAWAY, WINDOW, CONTINUATION] = [6, 7, 8, 9];

interface Outcome {
  /** Something was refused: a GOAWAY with an error, or an RST_STREAM. */
  readonly refused: string | undefined;
  /** Codes of RST_STREAM by stream. */
  readonly resets: Readonly<Record<string, number>>;
  /** Streams that were answered, in order. */
  readonly answered: string;
}

function outcomeOf(frames: readonly SentFrame[], broke = ""): Outcome {
  let refused = broke === "" ? undefined : broke;
  const answered = new Set<number>();
  const resets: Record<string, number> = {};
  for (const { type, flags, id, head } of frames) {
    if ((type === DATA || type === HEADERS) && (flags & 1) === 1) answered.add(id);
    if (type !== GOAWAY && type !== RESET) continue;
    const code = Number.parseInt(type === GOAWAY ? head.slice(8, 16) : head, 16);
    // NO_ERROR is no refusal: behind an answer, or because the client has said GOAWAY.
    if (code === 0) continue;
    if (type === RESET) resets[id] = code;
    refused ??= type === GOAWAY ? `GOAWAY ${code}` : `stream ${id} ${code}`;
  }
  return { refused, resets, answered: [...answered].sort((a, b) => a - b).join() };
}

/** Which code, and whether the stream or the connection pays, is often free. */
function agree(ours: Outcome, theirs: Outcome): boolean {
  if (ours.refused !== undefined && theirs.refused !== undefined) return true;
  return ours.refused === theirs.refused && ours.answered === theirs.answered;
}

interface Difference {
  readonly ours: Outcome;
  readonly theirs: Outcome;
  readonly sent: readonly SentFrame[];
  readonly damaged: boolean;
}

/** Differences that are right, and why. */
const EXPLAINED: readonly { readonly why: string; applies(difference: Difference): boolean }[] = [
  {
    why: "RFC 9113 section 6.7 forbids no PING acknowledgement that nobody asked for; Node ends the session",
    applies: ({ ours, sent }) =>
      ours.refused === undefined && sent.some(({ type, flags }) => type === PING && (flags & 1) === 1),
  },
  {
    why: "section 5.1, closed: what comes for a stream that was reset or passed over is a stream error; nghttp2 lets it pass",
    applies: ({ ours, theirs }) => passedOver(ours, theirs, [5]),
  },
  {
    why: "section 5.1.1: a stream opened behind a higher one is a connection error; nghttp2 lets it pass",
    applies: ({ theirs, sent }) => theirs.refused === undefined && opensBackwards(sent),
  },
  {
    why: "section 8.2.1: a field with a forbidden character makes a request malformed; nghttp2 drops the field",
    applies: ({ ours, theirs, damaged }) => damaged && passedOver(ours, theirs, [1, 5]),
  },
  {
    why: "section 4.3: we judge frames and header blocks when they are whole, nghttp2 as their bytes come",
    applies: ({ ours, sent, damaged }) => ours.refused === undefined && (damaged || endsWithinBlock(sent)),
  },
  {
    why: "section 4.2: a frame over SETTINGS_MAX_FRAME_SIZE is refused by its header; nghttp2 waits for a CONTINUATION",
    applies: ({ ours, theirs, damaged }) =>
      damaged && theirs.refused === undefined && ours.refused === "GOAWAY 6",
  },
  {
    why: "section 6.5.3: each value of a setting is judged; nghttp2 looks at the last of several",
    applies: ({ ours, theirs, sent }) =>
      theirs.refused === undefined &&
      /^GOAWAY [13]$/.test(ours.refused ?? "") &&
      sent.some(({ type, length }) => type === SETTINGS && length > 6),
  },
  {
    why: "section 5.1, idle: only HEADERS and PRIORITY may come; nghttp2 takes what a PRIORITY has named for open",
    applies: ({ ours, theirs, sent }) =>
      theirs.refused === undefined &&
      ours.refused === "GOAWAY 1" &&
      sent.some(
        ({ type, id }) => type === PRIORITY && sent.some((other) => other.type === WINDOW && other.id === id),
      ),
  },
  {
    why: "section 6.1: padding as long as its frame is a connection error; nghttp2 skips frames of closed streams",
    applies: ({ ours, theirs, sent }) =>
      theirs.refused === undefined &&
      sent.some(
        ({ type, flags, length, head }) =>
          type === DATA && (flags & 8) !== 0 && Number.parseInt(head.slice(0, 2), 16) >= length,
      ) &&
      ours.refused !== undefined,
  },
  {
    why: "section 6.8: a client's GOAWAY speaks of streams that a server opens; nghttp2 takes no more from it",
    applies: ({ sent }) => sent.some(({ type }) => type === GOAWAY),
  },
  {
    why: "section 10.5.1: how many CONTINUATION frames are too many is each server's to say; nghttp2's limit is 8",
    applies: ({ ours, sent }) =>
      ours.refused === undefined && sent.filter(({ type }) => type === CONTINUATION).length > 8,
  },
];

/** Only we refuse, streams and all of them with `allowed` codes, and all others have the same end. */
function passedOver(ours: Outcome, theirs: Outcome, allowed: readonly number[]): boolean {
  const others = theirs.answered.split(",").filter((id) => ours.resets[id] === undefined);
  const codes = Object.values(ours.resets);
  return (
    theirs.refused === undefined &&
    codes.length > 0 &&
    codes.every((code) => allowed.includes(code)) &&
    ours.answered === others.join()
  );
}

function endsWithinBlock(sent: readonly SentFrame[]): boolean {
  const last = sent.at(-1);
  return (last?.type === HEADERS || last?.type === CONTINUATION) && (last.flags & 4) === 0;
}

function opensBackwards(sent: readonly SentFrame[]): boolean {
  let highest = 0;
  for (const { type, id } of sent) {
    if (type !== HEADERS) continue;
    if (id < highest) return true;
    highest = id;
  }
  return false;
}

/** One opinion a connection; undefined for one that Node did not survive, which Node 20 does once in some 100,000. */
async function referenceOutcomes(batch: readonly Buffer[]): Promise<(Outcome | undefined)[]> {
  const outcomes: (Outcome | undefined)[] = [];
  while (outcomes.length < batch.length) {
    const child = start(["node", REFERENCE], { stdin: "pipe", stdout: "pipe", stderr: "ignore" });
    const left = batch.slice(outcomes.length);
    child.stdin.write(`${left.map((bytes) => bytes.toString("hex")).join("\n")}\n`);
    // A child that is gone takes no more input.
    await Promise.resolve(child.stdin.end()).catch(() => undefined);
    const lines = (await new Response(child.stdout).text()).split("\n").slice(0, -1);
    for (const line of lines) {
      const [sent = "", broke] = line.split(" ");
      outcomes.push(outcomeOf(framesOf(Buffer.from(sent, "hex")), broke));
    }
    if (outcomes.length < batch.length) outcomes.push(undefined);
  }
  return outcomes;
}

test(`${INPUTS} connections`, async () => {
  if (Bun.which("node") === null) {
    process.stdout.write("skipped: no node for a second opinion\n");
    return;
  }
  const seed = testSeed();
  const random = randomFrom(seed);
  let [answered, lost] = [0, 0];
  for (let input = 0; input < INPUTS; input += BATCH) {
    const batch = Array.from({ length: BATCH }, () => randomConnection(random));
    const opinions = await referenceOutcomes(batch.map(({ bytes }) => bytes));
    for (const [at, { bytes, damaged }] of batch.entries()) {
      const ours = outcomeOf((await exchange([bytes], OPTIONS)).frames);
      const theirs = opinions[at];
      if (theirs === undefined) {
        lost += 1;
        continue;
      }
      if (ours.refused === undefined && ours.answered !== "") answered += 1;
      if (agree(ours, theirs)) continue;
      const difference = { ours, theirs, sent: framesOf(bytes.subarray(24), true), damaged };
      if (EXPLAINED.some(({ applies }) => applies(difference))) continue;
      // Node may put the end of one session down to the next: it is asked once more, about this one alone.
      const [again] = await referenceOutcomes([bytes]);
      if (again === undefined || agree(ours, again)) continue;
      const from = { seed, input: input + at, sent: bytes.toString("hex") };
      expect({ ...from, ...ours }).toEqual({ ...from, ...theirs });
    }
  }
  expect(lost).toBeLessThan(INPUTS / 1000);
  // Mostly refused connections would be no test.
  expect(answered).toBeGreaterThan(INPUTS / 10);
});
