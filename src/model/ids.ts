import { fail, quote } from "./errors.ts";
import { MAX_IDENTIFIER_BYTES } from "./limits.ts";

const IDENTIFIER = /^[A-Za-z0-9]+(?:[._-](?:[A-Za-z0-9]+))*$/;

/**
 * Throws InvalidArgument unless `id` may name a namespace, a container or a sandbox. What passes is safe as one
 * component of a path. Rule and wording: containerd `pkg/identifiers`.
 * @param prefix put before the message, such as `container.ID: `
 */
export function validateIdentifier(id: string, prefix = ""): void {
  if (id === "") throw fail("InvalidArgument", `${prefix}identifier must not be empty`);
  if (Buffer.byteLength(id) > MAX_IDENTIFIER_BYTES) {
    const rule = `greater than maximum length (${MAX_IDENTIFIER_BYTES} characters)`;
    throw fail("InvalidArgument", `${prefix}identifier ${quote(id)} ${rule}`);
  }
  if (!IDENTIFIER.test(id)) {
    throw fail("InvalidArgument", `${prefix}identifier ${quote(id)} must match ${IDENTIFIER.source}`);
  }
}
