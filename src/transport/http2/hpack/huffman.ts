/**
 * RFC 7541 appendix B. The code is canonical: codes of one length ascend with the symbol, and each length goes on where the shorter
 * one ended, so that the lengths alone tell all codes.
 */
const CODE_BITS = Uint8Array.from(
  (
    "13,23,28,28,28,28,28,28,28,24,30,28,28,30,28,28,28,28,28,28,28,28,30,28,28,28,28,28,28,28,28,28," +
    "6,10,10,12,13,6,8,11,10,10,8,11,8,6,6,6,5,5,5,6,6,6,6,6,6,6,7,8,15,6,12,10," +
    "13,6,7,7,7,7,7,7,7,7,7,7,7,7,7,7,7,7,7,7,7,7,7,7,8,7,8,13,19,13,14,6," +
    "15,5,6,5,6,5,6,6,6,5,7,7,6,6,6,5,6,7,6,5,5,6,7,7,7,7,7,15,11,14,13,28," +
    "20,22,20,20,22,22,22,23,22,23,23,23,23,23,24,23,24,24,22,23,24,23,23,23,23,21,22,23,22,23,23,24," +
    "22,21,20,22,22,23,23,21,23,22,22,24,21,22,23,23,21,21,22,21,23,22,23,23,20,22,22,22,23,22,22,23," +
    "26,26,20,19,22,23,22,25,26,26,26,27,27,26,24,25,19,21,26,27,27,26,27,24,21,21,26,26,28,27,27,27," +
    "20,24,20,21,22,21,21,23,22,22,25,25,24,24,26,23,26,27,26,26,27,27,27,27,27,28,27,27,27,27,27,26," +
    "30"
  )
    .split(",")
    .map(Number),
);

const EOS = 256;
const SYMBOLS = 257;
const MAX_CODE_BITS = 30;

let codes: Uint32Array | undefined;

/** Made at the first use, as the machine below. */
function codeOf(symbol: number): number {
  codes ??= canonicalCodes();
  return codes[symbol] ?? 0;
}

function canonicalCodes(): Uint32Array {
  const next = new Uint32Array(32);
  for (let symbol = 0; symbol < SYMBOLS; symbol++) next[bitsOf(symbol)] = (next[bitsOf(symbol)] ?? 0) + 1;
  let first = 0;
  for (let bits = 0; bits < next.length; bits++) {
    const count = next[bits] ?? 0;
    next[bits] = first;
    first = (first + count) << 1;
  }
  const found = new Uint32Array(SYMBOLS);
  for (let symbol = 0; symbol < SYMBOLS; symbol++) {
    const bits = bitsOf(symbol);
    found[symbol] = next[bits] ?? 0;
    next[bits] = (next[bits] ?? 0) + 1;
  }
  return found;
}

function bitsOf(symbol: number): number {
  return CODE_BITS[symbol] ?? 0;
}

/**
 * A machine that takes four bits a step. A state is an inner node of the code's tree, 0 its root; a step is the next state, the
 * symbol that ended on the way (at most one: the shortest code has five bits) and whether there was one, or EOS was.
 */
const EMIT = 1 << 16;
const INVALID = 1 << 17;
/** A step that was not asked for yet: a program that decodes a few strings needs few of them. */
const UNKNOWN = 1 << 18;

interface Machine {
  /** Two children a node: an inner node's number, or -1 - symbol. */
  readonly children: Int16Array;
  readonly steps: Int32Array;
  /** 1 where a string may end: at most 7 bits into a code, all of them ones (section 5.2). */
  readonly mayEnd: Uint8Array;
}

let machine: Machine | undefined;

/**
 * The tree level by level. Of a canonical code's nodes at one depth the leaves come first, in the order of their symbols; so the inner
 * nodes, numbered as they come, have their children in the same order. (A client that makes a call or two does little else that takes as long.)
 */
function buildTree(): Int16Array {
  const counts = new Uint16Array(MAX_CODE_BITS + 1);
  for (const bits of CODE_BITS) counts[bits] = (counts[bits] ?? 0) + 1;
  const ends = new Uint16Array(counts);
  for (let bits = 1; bits <= MAX_CODE_BITS; bits++) ends[bits] = (ends[bits - 1] ?? 0) + (counts[bits] ?? 0);
  const ordered = new Uint16Array(SYMBOLS);
  for (let symbol = SYMBOLS - 1; symbol >= 0; symbol--) {
    const bits = CODE_BITS[symbol] ?? 0;
    const at = (ends[bits] ?? 0) - 1;
    ends[bits] = at;
    ordered[at] = symbol;
  }
  const children = new Int16Array(256 * 2);
  let child = 0;
  let nodes = 1;
  let leaf = 0;
  for (let bits = 1, width = 2; bits <= MAX_CODE_BITS; bits++) {
    const leaves = counts[bits] ?? 0;
    for (let at = 0; at < width; at++)
      children[child++] = at < leaves ? -1 - (ordered[leaf++] ?? 0) : nodes++;
    width = (width - leaves) * 2;
  }
  return children;
}

function buildMachine(): Machine {
  const children = buildTree();
  const mayEnd = new Uint8Array(256);
  let ones = 0;
  for (let bits = 0; bits <= 7; bits++) {
    mayEnd[ones] = 1;
    ones = children[ones * 2 + 1] ?? 0;
  }
  return { children, steps: new Int32Array(256 * 16).fill(UNKNOWN), mayEnd };
}

function learnStep({ children, steps }: Machine, index: number): number {
  let node = index >>> 4;
  let emitted = 0;
  let step: number | undefined;
  for (let bit = 3; bit >= 0; bit--) {
    const next = children[node * 2 + ((index >>> bit) & 1)] ?? 0;
    if (next === -1 - EOS) step = INVALID;
    if (next < 0) emitted = EMIT | ((-1 - next) << 8);
    node = Math.max(next, 0);
  }
  step ??= emitted | node;
  steps[index] = step;
  return step;
}

/** The most bytes that `encoded` bytes may decode to. */
export function maxDecodedBytes(encoded: number): number {
  return Math.ceil((encoded * 8) / 5);
}

/**
 * Decodes `source` from `start` to `end` into `target`; answers the length, or -1 for the EOS symbol, a padding longer than 7 bits or
 * one that is not of ones (section 5.2).
 */
export function decodeHuffman(source: Uint8Array, start: number, end: number, target: Uint8Array): number {
  machine ??= buildMachine();
  const { steps, mayEnd } = machine;
  let state = 0;
  let length = 0;
  for (let at = start; at < end; at++) {
    const byte = source[at] ?? 0;
    const first = state * 16 + (byte >>> 4);
    let step = steps[first] ?? INVALID;
    if (step === UNKNOWN) step = learnStep(machine, first);
    if ((step & EMIT) !== 0) target[length++] = (step >>> 8) & 0xff;
    const high = step;
    const second = (step & 0xff) * 16 + (byte & 15);
    step = steps[second] ?? INVALID;
    if (step === UNKNOWN) step = learnStep(machine, second);
    if ((step & EMIT) !== 0) target[length++] = (step >>> 8) & 0xff;
    if (((step | high) & INVALID) !== 0) return -1;
    state = step & 0xff;
  }
  return mayEnd[state] === 1 ? length : -1;
}

/** Length of the encoded string in bytes. */
export function huffmanBytes(text: Uint8Array): number {
  let bits = 0;
  for (const byte of text) bits += bitsOf(byte);
  return (bits + 7) >>> 3;
}

/** Encodes `text` into `target` at `at`; answers where it ends. */
export function encodeHuffman(text: Uint8Array, target: Uint8Array, at: number): number {
  let end = at;
  let pending = 0;
  let bits = 0;
  for (const byte of text) {
    // At most 7 bits wait and 28 come: more than 32, so the code goes in as two halves.
    const code = codeOf(byte);
    const length = bitsOf(byte);
    for (const [part, size] of length > 16
      ? [[code >>> 16, length - 16] as const, [code & 0xffff, 16] as const]
      : [[code, length] as const]) {
      pending = (pending << size) | part;
      bits += size;
      while (bits >= 8) {
        bits -= 8;
        target[end++] = pending >>> bits;
      }
      pending &= (1 << bits) - 1;
    }
  }
  if (bits > 0) target[end++] = (pending << (8 - bits)) | (0xff >>> bits);
  return end;
}
