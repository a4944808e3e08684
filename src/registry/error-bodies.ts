import { unquoted } from "../model/errors.ts";
import { readBody } from "./exchange.ts";
import { ERROR_BODY_TIMEOUT_MS, MAX_ERROR_BODY_BYTES, MAX_REASON_CHARACTERS } from "./limits.ts";

/** The registry's own words (distribution-spec, error codes), as containerd joins them; empty if there are none. */
export async function registryWords(response: Response): Promise<string> {
  // A body that does not come says nothing; its status is told anyway.
  const bytes = await readUpTo(response, MAX_ERROR_BODY_BYTES).catch(() => undefined);
  if (bytes === undefined) return "";
  try {
    const document = JSON.parse(Buffer.from(bytes).toString("utf8")) as { errors?: unknown } | null;
    const errors = document?.errors;
    if (!Array.isArray(errors)) return "";
    const words = errors.slice(0, 8).map((error: { code?: unknown; message?: unknown } | null) => {
      const code =
        typeof error?.code === "string" ? error.code.toLowerCase().replaceAll("_", " ") : "unknown";
      return typeof error?.message === "string" && error.message !== "" ? `${code}: ${error.message}` : code;
    });
    return unquoted(words.join("; ").slice(0, MAX_REASON_CHARACTERS));
  } catch {
    // No JSON: a proxy's page of HTML, which says no more than the status.
    return "";
  }
}

/** The body's beginning; the rest is not waited for. */
async function readUpTo(response: Response, maxBytes: number): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  let size = 0;
  for await (const piece of readBody(response, AbortSignal.timeout(ERROR_BODY_TIMEOUT_MS))) {
    parts.push(piece);
    size += piece.length;
    if (size >= maxBytes) break;
  }
  return Buffer.concat(parts).subarray(0, maxBytes);
}
