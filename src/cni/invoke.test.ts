import { afterEach, beforeEach, expect, test } from "bun:test";
import {
  chmodSync,
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { LATE_NS } from "../linux/timer-slack.ts";
import { type Invocation, invokePlugin } from "./invoke.ts";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "bunkerd-cni-"));
  mkdirSync(join(folder, "empty"));
});
afterEach(() => rmSync(folder, { recursive: true }));

function plugin(script: string, type = "probe"): void {
  writeFileSync(join(folder, type), `#!/bin/sh\n${script}\n`);
  chmodSync(join(folder, type), 0o755);
}

function invoke(more: Partial<Invocation> = {}): ReturnType<typeof invokePlugin> {
  return invokePlugin({
    command: "ADD",
    type: "probe",
    binDirs: [join(folder, "empty"), folder],
    containerId: "c1",
    netnsPath: "/var/run/netns/a",
    interfaceName: "eth0",
    args: [
      ["IgnoreUnknown", "1"],
      ["K8S_POD_NAME", "web"],
    ],
    config: { name: "net", type: "probe" },
    timeoutMs: 20_000,
    ...more,
  });
}

test("a plugin gets its parameters in the environment and its configuration on stdin", async () => {
  plugin(`cat >${folder}/stdin; env | grep ^CNI_ | sort >${folder}/env; echo '{"cniVersion":"1.0.0"}'`);
  expect(await invoke()).toEqual({ cniVersion: "1.0.0" });
  expect(JSON.parse(readFileSync(join(folder, "stdin"), "utf8"))).toEqual({ name: "net", type: "probe" });
  expect(readFileSync(join(folder, "env"), "utf8").trimEnd().split("\n")).toEqual([
    "CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAME=web",
    "CNI_COMMAND=ADD",
    "CNI_CONTAINERID=c1",
    "CNI_IFNAME=eth0",
    "CNI_NETNS=/var/run/netns/a",
    `CNI_PATH=${folder}/empty:${folder}`,
  ]);
});

test("the timers of a plugin that may leave something running are as usual, those of the CNI project's may be late", async () => {
  for (const type of ["probe", "bridge"]) {
    plugin(`cat >/dev/null; cat /proc/self/timerslack_ns >${folder}/${type}.slack`, type);
    await invoke({ type, config: { name: "net", type } });
  }
  expect(readFileSync(join(folder, "probe.slack"), "utf8")).toBe(
    readFileSync("/proc/self/timerslack_ns", "utf8"),
  );
  expect(Number(readFileSync(join(folder, "bridge.slack"), "utf8"))).toBe(LATE_NS);
});

test.each([
  [
    "an error of the specification",
    `echo '{"code":7,"msg":"no bridge","details":"cni0"}'; exit 1`,
    "Unknown",
    "no bridge; cni0",
  ],
  ["one without details", `echo '{"code":7,"msg":"no bridge"}'; exit 1`, "Unknown", "no bridge"],
  ["a busy network", `echo '{"code":11,"msg":"try again later"}'; exit 1`, "Unavailable", "try again later"],
  ["words on stderr", "echo oops >&2; exit 2", "Unknown", 'netplugin failed: "oops\\n": exit status 2'],
  ["no word at all", "exit 3", "Unknown", "netplugin failed with no error message: exit status 3"],
  [
    "an end by a signal",
    "kill -SEGV $$",
    "Unknown",
    "netplugin failed with no error message: signal: segmentation fault",
  ],
  [
    "no JSON",
    "echo oops; exit 1",
    "Unknown",
    'netplugin failed but error parsing its diagnostic message "oops\\n": ',
  ],
  ["a result that is no JSON", "echo oops", "Unknown", "failed to unmarshal raw result: "],
])("%s is told", async (_what, script, code, message) => {
  plugin(script);
  const failure = await invoke().catch((error: unknown) => error);
  expect(failure).toMatchObject({ name: "BunkerdError", code });
  expect((failure as Error).message).toStartWith(message);
});

test("nothing printed is no result", async () => {
  plugin("exit 0");
  expect(await invoke()).toBeUndefined();
  plugin("echo null");
  expect(await invoke()).toBeUndefined();
});

test("a plugin that is not there, or is named as a path", async () => {
  expect(invoke()).rejects.toThrow(`failed to find plugin "probe" in path [${folder}/empty ${folder}]`);
  expect(invoke({ type: "../probe" })).rejects.toThrow("invalid plugin name: ../probe");
});

test("a plugin that is still being written is waited for", async () => {
  plugin(`echo '{"cniVersion":"1.0.0"}'`);
  const writer = openSync(join(folder, "probe"), "r+");
  const answer = invoke();
  setTimeout(closeSync, 50, writer);
  expect(await answer).toEqual({ cniVersion: "1.0.0" });
});

test("at the deadline and at the caller's abort a plugin and its children are killed", async () => {
  plugin(`(sleep 600; touch ${folder}/late) & echo $! >${folder}/child; echo working >&2; wait`);
  expect(invoke({ timeoutMs: 300 })).rejects.toMatchObject({
    code: "DeadlineExceeded",
    message: 'netplugin killed after context deadline exceeded: "working"',
  });
  const controller = new AbortController();
  const aborted = invoke({ signal: controller.signal });
  controller.abort();
  expect(aborted).rejects.toMatchObject({ code: "Canceled" });
  await aborted.catch(() => undefined);
  expect(invoke({ signal: controller.signal })).rejects.toMatchObject({ code: "Canceled" });
  expect(existsSync(join(folder, "late"))).toBe(false);
});
