const PLAIN = /^[ -$&-~]*$/;
/** HTTP/2 has no spaces around a value (RFC 9113, section 8.2.1): clients drop such a trailer. */
const SPACES_AROUND = /^ +| +$/;
const encoder = new TextEncoder();

/**
 * Percent-encodes a `grpc-message`: everything outside printable ASCII, and `%` (gRPC's PROTOCOL-HTTP2.md, "Status-Message").
 * Longer ones than `maxBytes` on the wire are cut behind a whole character and end in "...".
 */
export function encodeStatusMessage(message: string, maxBytes: number): string {
  if (message.length <= maxBytes && PLAIN.test(message) && !SPACES_AROUND.test(message)) return message;
  let encoded = "";
  for (const character of message) {
    const next = PLAIN.test(character) ? character : percentOf(character);
    if (encoded.length + next.length > maxBytes - 3) return `${encoded}...`;
    encoded += next;
  }
  return encoded.replace(/^ +| +$/g, (spaces) => "%20".repeat(spaces.length));
}

function percentOf(character: string): string {
  let text = "";
  for (const byte of encoder.encode(character))
    text += `%${byte.toString(16).toUpperCase().padStart(2, "0")}`;
  return text;
}
