/** Limits that more than one room keeps. Sizes are bytes of UTF-8. */

/** Longest identifier: namespaces, containers, sandboxes, tasks (containerd `pkg/identifiers`). */
export const MAX_IDENTIFIER_BYTES = 76;

/** Largest label, key and value together (containerd `pkg/labels`). */
export const MAX_LABEL_BYTES = 4096;

/** How much of a label's key an error repeats (containerd `pkg/labels`). */
export const MAX_LABEL_KEY_IN_ERROR_BYTES = 64;
