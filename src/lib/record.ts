/** Maps that are plain objects, as protobuf's are, with keys that strangers choose (`constructor`, `__proto__`). */

/** The value that stands in `record` itself, never an inherited one. */
export function ownValue<T>(record: Readonly<Record<string, T>>, key: string): T | undefined {
  return Object.hasOwn(record, key) ? record[key] : undefined;
}

/** Sets a value whatever the key. */
export function setOwn<T>(record: Record<string, T>, key: string, value: T): void {
  if (key !== "__proto__") record[key] = value;
  else Object.defineProperty(record, key, { value, configurable: true, enumerable: true, writable: true });
}
