/** 4 or 6 for an address of that family, else 0, as `node:net` tells: that is loaded when the first is asked about, which takes a command a millisecond. */
export function isIP(text: string): number {
  return process.getBuiltinModule("node:net").isIP(text);
}
