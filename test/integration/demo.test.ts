/** The first thing that a new user sees: `make demo`. */
import { expect, test } from "bun:test";
import { join } from "node:path";
import { bunkerdCommand } from "../support/daemons.ts";
import { run } from "../support/processes.ts";

const REPOSITORY = join(import.meta.dir, "../..");

test("the sample pod runs: init container, two containers, a post-start hook", async () => {
  const env = { BUNKERD_BIN: bunkerdCommand().join(" ") };
  const { code, stdout, stderr } = await run([process.execPath, "docs/sample/demo.ts"], {
    cwd: REPOSITORY,
    env,
  });
  const lines = stdout.trim().split("\n");
  expect({ code, first: lines[0] }, stderr).toEqual({
    code: 0,
    first: "[prepare] the init container was here first",
  });
  expect(lines.toSorted()).toEqual(
    [
      "[prepare] the init container was here first",
      "[counter] 1",
      "[counter] 2",
      "[counter] 3",
      "[reader] the init container was here first",
      "[reader] the post-start hook of reader has run",
    ].toSorted(),
  );
});
