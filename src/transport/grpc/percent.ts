const PLAIN = /^[ -$&-~]*$/;
const encoder = new TextEncoder();

/**
 * Percent-encodes a `grpc-message`: everything outside printable ASCII, and `%` (gRPC's PROTOCOL-HTTP2.md, "Status-Message").
 * Longer ones than `maxBytes` on the wire are cut behind a whole character and end in "...".
 */
export function encodeStatusMessage(message: string, maxBytes: number): string {
  if (message.length <= maxBytes && PLAIN.test(message)) return message;
  let encoded = "";
  for (const character of message) {
    const next = PLAIN.test(character) ? character : percentOf(character);
    if (encoded.length + next.length > maxBytes - 3) return `${encoded}...`;
    encoded += next;
  }
  return encoded;
}

function percentOf(character: string): string {
  let text = "";
  for (const byte of encoder.encode(character))
    text += `%${byte.toString(16).toUpperCase().padStart(2, "0")}`;
  return text;
}
