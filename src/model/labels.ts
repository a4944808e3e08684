import { fail } from "./errors.ts";
import { MAX_LABEL_BYTES, MAX_LABEL_KEY_IN_ERROR_BYTES } from "./limits.ts";

/** Labels of any object. */
export type Labels = Readonly<Record<string, string>>;

/** Set on an object: garbage collection keeps it whoever refers to it. Value: any (usually a time). */
export const LABEL_GC_ROOT = "containerd.io/gc.root";
/** Set on a lease or image: RFC 3339 time after which it no longer keeps anything. */
export const LABEL_GC_EXPIRE = "containerd.io/gc.expire";
/** Set on a lease: keeps only what it names, not what that refers to. */
export const LABEL_GC_FLAT = "containerd.io/gc.flat";
/** Set on a namespace: `true` lets other namespaces use its content. */
export const LABEL_SHARED_NAMESPACE = "containerd.io/namespace.shareable";

/**
 * Throws InvalidArgument if key and value together exceed 4096 bytes. Rule and wording: containerd `pkg/labels`.
 * @param prefix put before the message, such as `containers.Labels: `
 */
export function validateLabel(key: string, value: string, prefix = ""): void {
  const sizeBytes = Buffer.byteLength(key) + Buffer.byteLength(value);
  if (sizeBytes <= MAX_LABEL_BYTES) return;
  const rule = `label key and value length (${sizeBytes} bytes) greater than maximum size (${MAX_LABEL_BYTES} bytes)`;
  const shown = Buffer.from(key).subarray(0, MAX_LABEL_KEY_IN_ERROR_BYTES).toString();
  throw fail("InvalidArgument", `${prefix}${rule}, key: ${shown}`);
}
