import { quote } from "../../model/errors.ts";
import type { Cri } from "../cri.ts";
import { step } from "../records.ts";
import { assertRunning } from "./stop.ts";

/** After rotation: what the container writes from now on goes to a new file. @throws NotFound, Unknown unless it runs */
export async function reopenContainerLog(cri: Cri, containerId: string): Promise<void> {
  const container = await step(`an error occurred when try to find container ${quote(containerId)}`, () =>
    cri.containers.get(containerId),
  );
  assertRunning(container);
  await step("failed to create and open log file", () => container.io?.reopenLog());
}
