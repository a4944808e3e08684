import { expect, test } from "bun:test";
import { inProcessClient } from "../../test/support/in-process.ts";
import { versionService } from "./version.ts";

test("Version tells version and revision to whoever asks", async () => {
  const client = inProcessClient(versionService({ version: "v2.1.0+bunkerd.1", revision: "abc" }));
  expect(await client.version({})).toMatchObject({ version: "v2.1.0+bunkerd.1", revision: "abc" });
});
