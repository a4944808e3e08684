/** Outcomes of a connection with the engine and with nghttp2, whether they agree, and where they may not. */
import type { SentFrame } from "./engine-wire.ts";
import { plainHpack } from "./plain-hpack.ts";

const [DATA, HEADERS, RESET, SETTINGS] = [0, 1, 3, 4];
const [PING, GOAWAY, CONTINUATION] = [6, 7, 9];
const PREFACE_BYTES = 24;

export interface Outcome {
  /** Something was refused: a GOAWAY with an error, or an RST_STREAM. */
  readonly refused: string | undefined;
  /** Codes of RST_STREAM by stream. */
  readonly resets: Readonly<Record<string, number>>;
  /** Streams that were answered, in order. */
  readonly answered: string;
}

export function outcomeOf(frames: readonly SentFrame[], broke = ""): Outcome {
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
export function agree(ours: Outcome, theirs: Outcome): boolean {
  if (ours.refused !== undefined && theirs.refused !== undefined) return true;
  return ours.refused === theirs.refused && ours.answered === theirs.answered;
}

interface Frame {
  readonly type: number;
  readonly flags: number;
  readonly id: number;
  readonly length: number;
  /** Less than `length` bytes if the connection ends within the frame. */
  readonly payload: Buffer;
}

/** The frames of a client's connection; the last may be cut. */
function framesIn(bytes: Buffer): Frame[] {
  const frames: Frame[] = [];
  for (let at = PREFACE_BYTES; bytes.length - at >= 9; ) {
    const length = bytes.readUIntBE(at, 3);
    frames.push({
      type: bytes.readUInt8(at + 3),
      flags: bytes.readUInt8(at + 4),
      id: bytes.readUInt32BE(at + 5) % 2 ** 31,
      length,
      payload: bytes.subarray(at + 9, at + 9 + length),
    });
    at += 9 + length;
  }
  return frames;
}

/** Nothing is asked of a server by an acknowledgement that nobody awaits, nor by a client's GOAWAY. */
function meansNothing({ type, flags }: Frame): boolean {
  return (type === PING && (flags & 1) === 1) || type === GOAWAY;
}

/**
 * The connection without frames that a server may make nothing of. RFC 9113 section 6.7 forbids no PING acknowledgement that nobody
 * asked for, Node ends the session; a client's GOAWAY (section 6.8) speaks of streams that a server opens, nghttp2 takes no more from it.
 */
export function meaningful(bytes: Buffer): Buffer {
  const kept: Buffer[] = [bytes.subarray(0, PREFACE_BYTES)];
  let at = PREFACE_BYTES;
  for (const frame of framesIn(bytes)) {
    const end = Math.min(bytes.length, at + 9 + frame.length);
    if (!meansNothing(frame)) kept.push(bytes.subarray(at, end));
    at = end;
  }
  return Buffer.concat([...kept, bytes.subarray(at)]);
}

export interface Difference {
  readonly ours: Outcome;
  readonly theirs: Outcome;
  /** What the client sent. */
  readonly bytes: Buffer;
}

/** A difference with what it was about. */
interface Case extends Difference {
  readonly frames: readonly Frame[];
  /** The last frame is not whole. */
  readonly cut: boolean;
}

/** Differences that are right, and why; each has an example in `test/fuzz/corpus/nghttp2`. */
const EXPLAINED: Readonly<Record<string, { why: string; applies(difference: Case): boolean }>> = {
  "closed-stream": {
    why: "section 5.1, closed: what comes for a stream that was reset or passed over is a stream error; nghttp2 lets it pass",
    applies: ({ ours, theirs }) => passedOver(ours, theirs, [5]),
  },
  "opened-behind": {
    why: "section 5.1.1: a stream opened behind a higher one is a connection error; nghttp2 lets it pass",
    applies: ({ theirs, frames }) => theirs.refused === undefined && opensBackwards(frames),
  },
  "forbidden-character": {
    why: "section 8.2.1: a field with a forbidden character makes a request malformed; nghttp2 drops the field",
    applies: ({ ours, theirs, frames }) =>
      passedOver(ours, theirs, [1, 5]) && blocksIn(frames).some(hasForbiddenCharacter),
  },
  "blank-at-edge": {
    why: "section 8.2.1: a value that begins or ends with a blank makes a request malformed; nghttp2 lets it pass",
    applies: ({ ours, theirs, frames }) =>
      passedOver(ours, theirs, [1]) && blocksIn(frames).some(hasBlankAtEdge),
  },
  "no-uri": {
    why: "section 8.3.1: the parts of a URI are judged by who uses them, as in grpc-go: a path without / is an unknown method, an :authority the path of the socket or nothing; nghttp2 refuses what makes no URI",
    applies: ({ ours, theirs, frames }) =>
      ours.refused === undefined &&
      /^stream \d+ 1$/.test(theirs.refused ?? "") &&
      blocksIn(frames).some(makesNoUri),
  },
  "judged-whole": {
    why: "section 4.3: we judge frames and header blocks when they are whole, nghttp2 as their bytes come",
    applies: ({ ours, frames, cut }) => ours.refused === undefined && (cut || endsWithinBlock(frames)),
  },
  "too-long": {
    why: "section 4.2: a frame over SETTINGS_MAX_FRAME_SIZE is refused by its header; nghttp2 waits for a CONTINUATION",
    applies: ({ ours, theirs, frames }) =>
      theirs.refused === undefined &&
      ours.refused === "GOAWAY 6" &&
      frames.some(({ length }) => length > 16_384),
  },
  "several-values": {
    why: "section 6.5.3: each value of a setting is judged; nghttp2 looks at the last of several",
    applies: ({ ours, theirs, frames }) =>
      theirs.refused === undefined &&
      /^GOAWAY [13]$/.test(ours.refused ?? "") &&
      frames.some(({ type, length }) => type === SETTINGS && length > 6),
  },
  "all-padding": {
    why: "section 6.1: padding as long as its frame is a connection error; nghttp2 skips frames of closed streams",
    applies: ({ ours, theirs, frames }) =>
      theirs.refused === undefined && ours.refused !== undefined && frames.some(isAllPadding),
  },
  "many-continuations": {
    why: "section 10.5.1: how many CONTINUATION frames are too many is each server's to say; nghttp2's limit is 8",
    applies: ({ ours, frames }) =>
      ours.refused === undefined && frames.filter(({ type }) => type === CONTINUATION).length > 8,
  },
};

export const EXPLANATIONS: readonly string[] = Object.keys(EXPLAINED);

/** The name of what explains the difference. */
export function explanationOf(difference: Difference): string | undefined {
  const frames = framesIn(difference.bytes);
  const bytes = frames.reduce((sum, { length }) => sum + 9 + length, PREFACE_BYTES);
  const about = { ...difference, frames, cut: bytes !== difference.bytes.length };
  return Object.keys(EXPLAINED).find((name) => EXPLAINED[name]?.applies(about));
}

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

function endsWithinBlock(frames: readonly Frame[]): boolean {
  const last = frames.at(-1);
  return (last?.type === HEADERS || last?.type === CONTINUATION) && (last.flags & 4) === 0;
}

function opensBackwards(frames: readonly Frame[]): boolean {
  let highest = 0;
  for (const { type, id } of frames) {
    if (type !== HEADERS) continue;
    if (id < highest) return true;
    highest = id;
  }
  return false;
}

function isAllPadding({ type, flags, length, payload }: Frame): boolean {
  return type === DATA && (flags & 8) !== 0 && (payload[0] ?? 0) >= length;
}

type Fields = readonly (readonly [name: string, value: string])[];

/** What nghttp2 takes for a value. */
const WITHIN_URI: Readonly<Record<string, RegExp>> = {
  ":authority": /^[\w\-.~!$&'()*+,;=:@%[\]]*$/,
  ":scheme": /^[a-z][a-z0-9+\-.]*$/i,
  ":method": /^[!#$%&'*+\-.^`|~\w]+$/,
  ":path": /^\/[^\0-\x20\x7f]*$/,
};

function makesNoUri(fields: Fields): boolean {
  const request = fields.some(([name]) => name === ":path");
  const host = fields.some(([name]) => name === ":authority" || name === "host");
  return (request && !host) || fields.some(([name, value]) => WITHIN_URI[name]?.test(value) === false);
}

/** A name has what no token has (RFC 9110 section 5.6.2), or a value a control character. */
function hasForbiddenCharacter(fields: Fields): boolean {
  return fields.some(
    ([name, value]) => !/^:?[!#$%&'*+\-.^`|~\w]+$/.test(name) || /[^\t\x20-\x7e\x80-\xff]/.test(value),
  );
}

function hasBlankAtEdge(fields: Fields): boolean {
  return fields.some(([, value]) => /^[ \t]|[ \t]$/.test(value));
}

/** The fields of each header block, up to the first that cannot be decoded. */
function blocksIn(frames: readonly Frame[]): Fields[] {
  const hpack = plainHpack(4096);
  const blocks: Fields[] = [];
  let fragments: Buffer[] = [];
  for (const frame of frames) {
    if (frame.type !== HEADERS && frame.type !== CONTINUATION) continue;
    fragments.push(fragmentOf(frame));
    if ((frame.flags & 4) === 0) continue;
    const fields = hpack.decode(Buffer.concat(fragments));
    if (fields === undefined) break;
    blocks.push(fields);
    fragments = [];
  }
  return blocks;
}

/** A HEADERS or CONTINUATION frame without padding and priority. */
function fragmentOf({ type, flags, payload }: Frame): Buffer {
  if (type === CONTINUATION) return payload;
  const [padded, priority] = [(flags & 8) !== 0, (flags & 0x20) !== 0];
  const from = (padded ? 1 : 0) + (priority ? 5 : 0);
  return payload.subarray(from, Math.max(from, payload.length - (padded ? (payload[0] ?? 0) : 0)));
}
