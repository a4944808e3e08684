/** What test files of CRI begin and end with. */
import { afterAll, beforeAll } from "bun:test";
import { prepareCri } from "./cri.ts";
import { enterHostNetwork } from "./netns.ts";

/**
 * The file's tests run in a network namespace of their own, as do the daemons that they start: bridges and addresses are theirs. For files whose
 * daemons have ended when the file does.
 */
export function useHostNetwork(): void {
  let host: ReturnType<typeof enterHostNetwork> | undefined;
  beforeAll(async () => {
    await prepareCri();
    host = enterHostNetwork();
  });
  afterAll(() => host?.[Symbol.dispose]());
}
