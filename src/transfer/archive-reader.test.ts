import { expect, test } from "bun:test";
import { gnuLong, tar } from "../../test/support/tar.ts";
import { readArchive } from "./archive-reader.ts";

test.each([
  ["links", [gnuLong("K", "t".repeat(4000)), { name: "last", type: "2" }]],
  ["files", [gnuLong("L", `${"f".repeat(4000)}/last`), { name: "x", data: "" }]],
])("%s without end are refused, naming the one", async (_what, entries) => {
  const piece = tar(entries).subarray(0, -1024);
  let pieces = 0;
  async function* endless(): AsyncGenerator<Buffer> {
    for (;;) {
      pieces += 1;
      yield piece;
    }
  }
  const walked = readArchive(endless()).walk(async () => undefined);
  expect(await walked.catch(String)).toMatch(
    /"(?:last"|f+".*): names of more than \d+ bytes: resource exhausted/,
  );
  expect(pieces).toBeLessThan(10_000);
});
