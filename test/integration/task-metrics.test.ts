/** What tasks use, in the metrics' text: the same series as containerd's, gone with the task, without one shim that hangs. */
import { afterAll, expect, test } from "bun:test";
import { ctrIn, endNamespaces, leftovers, makeRootfs, newNamespace, shimsOf } from "../support/containers.ts";
import { type DaemonKind, daemonKinds, startDaemon } from "../support/daemons.ts";
import { freePort } from "../support/ports.ts";
import { removeFolder, temporaryFolder } from "../support/processes.ts";

const folder = temporaryFolder();
const namespace = newNamespace();
afterAll(() => {
  endNamespaces();
  removeFolder(folder);
});

const SETTINGS = '[timeouts]\n"io.containerd.timeout.metrics.shimstats" = "500ms"';

/** A daemon with two tasks that sleep, and their lines of the metrics. */
async function withTasks<T>(
  kind: DaemonKind,
  settings: string,
  use: (given: { linesOf(id: string): Promise<string[]>; ctr: ReturnType<typeof ctrIn> }) => Promise<T>,
): Promise<T> {
  const port = await freePort();
  const config = `${settings}\n[metrics]\naddress = "127.0.0.1:${port}"`;
  await using daemon = await startDaemon(kind, { config });
  const ctr = ctrIn("2.1", daemon, namespace);
  const rootfs = await makeRootfs(`${daemon.folder}/files`);
  for (const id of ["first", "second"]) {
    const words = ["run", "--detach", "--memory-limit", "50000000", "--rootfs", rootfs, id];
    expect(await ctr(...words, "/bin/sleep", "1000")).toMatchObject({ code: 0, stderr: "" });
  }
  const linesOf = async (id: string): Promise<string[]> => {
    const text = await (await fetch(`http://127.0.0.1:${port}/v1/metrics`)).text();
    return text.split("\n").filter((line) => line.includes(`container_id="${id}"`) || line.startsWith("# "));
  };
  const result = await use({ linesOf, ctr });
  for (const id of ["first", "second"]) {
    await ctr("tasks", "rm", "--force", id);
    await ctr("containers", "rm", id);
  }
  expect(leftovers(daemon.folder, namespace)).toEqual([]);
  return result;
}

/** Names, labels and helps, without the values. */
const seriesOf = (lines: readonly string[]): string[] =>
  lines
    .filter((line) => /^(# (HELP|TYPE) )?container_/.test(line))
    .map((line) => line.replace(/\} \S+$/, "}"))
    .sort();

const valueIn = (lines: readonly string[], name: string): number =>
  Number(
    lines
      .find((line) => line.startsWith(`container_${name}{`))
      ?.split(" ")
      .at(-1),
  );

test("tasks' use is told as containerd tells it", async () => {
  const series: string[][] = [];
  for (const kind of daemonKinds("containerd-2.1", "bunkerd")) {
    await withTasks(kind, "", async ({ linesOf }) => {
      const lines = await linesOf("first");
      series.push(seriesOf(lines));
      expect(lines).toContain(
        `container_pids_current{container_id="first",namespace="${namespace}",runtime="io.containerd.runc.v2"} 1`,
      );
      expect(valueIn(lines, "memory_usage_limit_bytes")).toBeCloseTo(50_000_000, -4);
      expect(valueIn(lines, "cpu_total_nanoseconds")).toBeGreaterThan(0);
    });
  }
  expect(series.every((each) => each.length > 100)).toBe(true);
  expect(series.at(-1)).toEqual(series[0] as string[]);
});

test.if(daemonKinds("bunkerd").length > 0)(
  "a shim that hangs takes nobody else's; what has gone is not told",
  async () => {
    await withTasks("bunkerd", SETTINGS, async ({ linesOf, ctr }) => {
      const ofTasks = async (id: string): Promise<number> =>
        (await linesOf(id)).filter((line) => line.startsWith("container_")).length;
      expect(await ofTasks("first")).toBeGreaterThan(50);
      const hung = shimsOf(namespace).find(({ id }) => id === "first")?.pid ?? 0;
      process.kill(hung, "SIGSTOP");
      try {
        expect(await ofTasks("first")).toBe(0);
        expect(await ofTasks("second")).toBeGreaterThan(50);
      } finally {
        process.kill(hung, "SIGCONT");
      }
      await ctr("tasks", "rm", "--force", "second");
      expect(await ofTasks("second")).toBe(0);
      expect(await ofTasks("first")).toBeGreaterThan(50);
    });
  },
);

test.if(daemonKinds("bunkerd").length > 0)("no_prometheus leaves them out", async () => {
  const off = '[plugins."io.containerd.monitor.task.v1.cgroups"]\nno_prometheus = true';
  await withTasks("bunkerd", off, async ({ linesOf }) => {
    expect(seriesOf(await linesOf("first"))).toEqual([]);
  });
});
