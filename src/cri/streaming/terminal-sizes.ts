import type { TerminalSize } from "../io/exec.ts";

/** Of one size; whoever sends more without a closing brace sends no size. */
const MAX_TEXT_BYTES = 4096;
const MAX_CHARACTERS = 2 ** 16 - 1;

/** The sizes in a resize stream: JSON objects `{"Width":80,"Height":24}`, one after another. Ends at the first that is none. */
export async function* terminalSizes(bytes: AsyncIterable<Uint8Array>): AsyncGenerator<TerminalSize> {
  let text = "";
  for await (const chunk of bytes) {
    text += Buffer.from(chunk).toString("latin1");
    for (let end = text.indexOf("}"); end >= 0; end = text.indexOf("}")) {
      const size = parseSize(text.slice(0, end + 1));
      if (size === undefined) return;
      text = text.slice(end + 1);
      yield size;
    }
    if (text.length > MAX_TEXT_BYTES) return;
  }
}

/** As Go's decoder: names in any case, a name that is missing means 0. */
function parseSize(text: string): TerminalSize | undefined {
  try {
    const fields = Object.entries(JSON.parse(text) as Record<string, unknown>);
    const field = (name: string): number => {
      const [, value = 0] = fields.find(([key]) => key.toLowerCase() === name) ?? [];
      if (!Number.isInteger(value) || Number(value) < 0 || Number(value) > MAX_CHARACTERS)
        throw new RangeError(`${name} is no size`);
      return Number(value);
    };
    return { width: field("width"), height: field("height") };
  } catch {
    // The client's own fault: its terminal keeps the size that it has.
    return undefined;
  }
}
