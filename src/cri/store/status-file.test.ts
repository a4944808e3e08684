import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { ContainerResourcesSchema, ContainerState } from "#gen/runtime/v1/api_pb.ts";
import { loadStatus, NEW_STATUS, StatusFile } from "./status-file.ts";

let folder = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "bunkerd-status-"));
});
afterEach(() => rmSync(folder, { recursive: true }));

/** In containerd's form; test/integration/cri/restart.test.ts reads its files and it ours. */
const WRITTEN =
  '{"Version":"v1","Pid":7,"CreatedAt":1795690145868826871,"StartedAt":1795690145868826872,"FinishedAt":0,"ExitCode":0,' +
  '"Reason":"","Message":"","Resources":{"linux":{"cpu_shares":2}}}';

test("a status in containerd's form is read, and written the same", async () => {
  writeFileSync(join(folder, "status"), WRITTEN);
  const status = await loadStatus(folder);
  expect(status).toMatchObject({ pid: 7, createdAt: 1795690145868826871n, finishedAt: 0n });
  const file = new StatusFile(folder, status);
  expect(file.state).toBe(ContainerState.CONTAINER_RUNNING);
  await file.save(() => ({}));
  expect(readFileSync(join(folder, "status"), "utf8")).toBe(WRITTEN);
  expect(readdirSync(folder)).toEqual(["status"]);
});

test("changes go one after the other, each from what the one before left", async () => {
  const file = new StatusFile(folder, { ...NEW_STATUS, createdAt: 1n });
  await Promise.all(Array.from({ length: 20 }, () => file.save(({ pid }) => ({ pid: pid + 1 }))));
  expect(file.get().pid).toBe(20);
  expect((await loadStatus(folder)).pid).toBe(20);
});

test("what is saved ahead stands on the disk, whatever else changes, and is told later", async () => {
  const file = new StatusFile(folder, { ...NEW_STATUS, createdAt: 1n, startedAt: 2n, pid: 7 });
  await file.saveAhead(() => ({ pid: 0, finishedAt: 3n, exitCode: 4 }));
  await file.save(() => ({ reason: "OOMKilled" }));
  expect(await loadStatus(folder)).toMatchObject({
    pid: 0,
    finishedAt: 3n,
    exitCode: 4,
    reason: "OOMKilled",
  });
  expect(file.state).toBe(ContainerState.CONTAINER_RUNNING);
  file.reveal();
  expect(file.get()).toMatchObject({ pid: 0, finishedAt: 3n, exitCode: 4, reason: "OOMKilled" });
});

test("what cannot be written has not happened", async () => {
  const file = new StatusFile(join(folder, "none"), { ...NEW_STATUS, createdAt: 1n });
  await expect(file.save(() => ({ startedAt: 2n }))).rejects.toThrow("failed to checkpoint status");
  expect(file.state).toBe(ContainerState.CONTAINER_CREATED);
  const resources = create(ContainerResourcesSchema, { linux: { cpuShares: 1n } });
  file.set({ resources });
  expect(file.get().resources).toBe(resources);
});

test.each(['{"Version":"v2"}', "{", "[]"])("a status that is none is refused: %s", async (text) => {
  writeFileSync(join(folder, "status"), text);
  await expect(loadStatus(folder)).rejects.toThrow("failed to decode status");
});
