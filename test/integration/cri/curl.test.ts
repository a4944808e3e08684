/** The lines of docs/cri.md for curl do what they say. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { BOX_IMAGE, type CriDaemon, podLeftovers, prepareCri, startCri } from "../../support/cri.ts";
import { enterHostNetwork } from "../../support/netns.ts";
import { run } from "../../support/processes.ts";

let host: ReturnType<typeof enterHostNetwork>;
let cri: CriDaemon;

beforeAll(async () => {
  await prepareCri();
  host = enterHostNetwork();
  cri = await startCri("bunkerd");
});
afterAll(async () => {
  await cri[Symbol.asyncDispose]();
  host[Symbol.dispose]();
});

test("a pod with a container is made, asked and removed", async () => {
  const text = readFileSync(join(import.meta.dir, "../../../docs/cri.md"), "utf8");
  const lines = (/```sh\n(.*?)```/s.exec(text)?.[1] ?? "")
    .replaceAll("/run/bunkerd/bunkerd.sock", cri.daemon.socket)
    .replaceAll("docker.io/library/busybox:1", BOX_IMAGE)
    .replaceAll("/tmp/web", join(cri.daemon.folder, "web"));
  const { stdout, stderr, code } = await run(["bash", "-e", "-c", lines]);
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  expect(stdout).toContain('"type":"RuntimeReady","status":true');
  expect(stdout).toContain('"state":"CONTAINER_RUNNING"');
  expect((await cri.runtime.listPodSandbox({})).items).toEqual([]);
  expect(podLeftovers(cri.daemon)).toEqual([]);
});
