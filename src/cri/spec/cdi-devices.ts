import type { Spec } from "./spec.ts";

export async function injectDevices(
  _spec: Spec,
  names: readonly string[],
  _dirs: readonly string[],
): Promise<void> {
  const { BunkerdError } = await import("../../model/errors.ts");
  throw new BunkerdError("Unimplemented", `CDI devices ${names.join(", ")}: not implemented`);
}
