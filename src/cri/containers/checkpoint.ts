import { BunkerdError, fail, quote } from "../../model/errors.ts";
import type { Cri } from "../cri.ts";

/**
 * Refuses: as the reference where criu is missing or switched off; checkpoints themselves are not built.
 * @throws Unknown, Unimplemented
 */
export async function checkpointContainer({ config }: Cri, containerId: string): Promise<never> {
  const failure = `failed to checkpoint container ${quote(containerId)}`;
  if (!config.runtime.enable_criu) {
    throw new BunkerdError("Unknown", `${failure}: criu support is disabled by configuration`);
  }
  if (Bun.which("criu") === null) {
    throw new BunkerdError("Unknown", `${failure}: criu binary not found in shim path or system PATH`);
  }
  throw fail("Unimplemented", failure);
}
