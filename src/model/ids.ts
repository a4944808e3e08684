import { fail, quote } from "./errors.ts";
import { MAX_IDENTIFIER_BYTES, MAX_KEY_BYTES } from "./limits.ts";

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

/**
 * Throws InvalidArgument unless `key` fits a database key. For names that containerd lets be anything (leases,
 * label keys, snapshot keys): there the database's own refusal comes back as an unknown error.
 * @param what names the thing in the message, such as `lease id`
 */
export function validateKey(key: string, what: string): void {
  if (key === "") throw fail("InvalidArgument", `${what} must not be zero-length`);
  if (Buffer.byteLength(key) > MAX_KEY_BYTES) {
    throw fail(
      "InvalidArgument",
      `${what} ${quote(key)} greater than maximum length (${MAX_KEY_BYTES} bytes)`,
    );
  }
}
