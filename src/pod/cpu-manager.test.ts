import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { removeFolder, temporaryFolder } from "../../test/support/processes.ts";
import { CpuManager } from "./cpu-manager.ts";

let folder = "";
let path = "";
beforeEach(() => {
  folder = temporaryFolder();
  path = join(folder, "state");
});
afterEach(() => removeFolder(folder));

const cores = new Map([0, 1, 2, 3].map((cpu) => [cpu, `0:${cpu}`]));
const open = (): CpuManager => new CpuManager({ path, cores, reserved: new Set([0]) });
const save = (entries: object, policyName = "static"): void =>
  writeFileSync(path, JSON.stringify({ policyName, defaultCpuSet: "0-3", entries }));

describe("the CPU manager's checkpoint", () => {
  test("what still runs on its CPUs keeps them; what has gone, or was started without the policy, does not", () => {
    save({ kept: { app: "1" }, gone: { app: "2" }, elsewhere: { app: "3" } });
    const manager = open();
    expect([...manager.shared]).toEqual([0]);
    manager.retain([
      { id: "a", uid: "kept", name: "app", cpus: "1" },
      { id: "b", uid: "elsewhere", name: "app", cpus: "0-3" },
    ]);
    expect(manager.exclusive("kept", "app")).toEqual(new Set([1]));
    expect([...manager.shared]).toEqual([0, 2, 3]);
    expect(JSON.parse(readFileSync(path, "utf8"))).toEqual({
      policyName: "static",
      defaultCpuSet: "0,2-3",
      entries: { kept: { app: "1" } },
    });
    manager.postStopContainer("a");
    expect([...manager.shared]).toEqual([0, 1, 2, 3]);
  });

  test("a runtime that does not tell CPUs is believed", () => {
    save({ kept: { app: "1-2" } });
    const manager = open();
    manager.retain([{ id: "a", uid: "kept", name: "app", cpus: "" }]);
    expect(manager.exclusive("kept", "app")).toEqual(new Set([1, 2]));
  });

  test("after a start whatever shares is told so, once", async () => {
    save({ kept: { app: "1" } });
    const manager = open();
    manager.retain([
      { id: "a", uid: "kept", name: "app", cpus: "1" },
      { id: "b", uid: "other", name: "app", cpus: "0-3" },
    ]);
    const told: string[] = [];
    const cri = {
      updateContainerResources: async (id: string, { cpusetCpus }: { cpusetCpus: string }) =>
        void told.push(`${id} ${cpusetCpus}`),
    };
    for (let round = 0; round < 2; round++) await manager.reconcile(cri as never);
    expect(told).toEqual(["b 0,2-3"]);
  });

  test.each([
    ["no JSON", "{", "end the pods that have CPUs for themselves and remove it"],
    ["no entries", "{}", "end the pods that have CPUs for themselves and remove it"],
    ["no set", '{"entries":{"a":{"b":"x"}}}', "is no CPU and no range"],
    ["another machine's", '{"entries":{"a":{"b":"9"}}}', "gives away CPU 9, which this machine has not"],
  ])("%s: refused, naming the file", (_name, text, words) => {
    writeFileSync(path, text);
    expect(open).toThrow(words);
    expect(open).toThrow(path);
  });
});
