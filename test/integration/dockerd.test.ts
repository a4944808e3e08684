/** Debian's dockerd and docker on the socket: images, and the life of containers, with its own image store and with containerd's. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { endNamespaces, leftovers, until } from "../support/containers.ts";
import { type DaemonKind, daemonKinds } from "../support/daemons.ts";
import { debianPackage, type Suite } from "../support/debian.ts";
import { type Docker, startDocker } from "../support/docker.ts";
import { removeFolder, temporaryFolder } from "../support/processes.ts";
import { tar } from "../support/tar.ts";

const files = temporaryFolder();
const rootfs = join(files, "rootfs.tar");
/** Containers outlive dockerd as well. */
const IMAGE_STORE = { features: { "containerd-snapshotter": true }, "live-restore": true };

/** [where images are, the daemon, Debian's docker, its configuration] */
const ways: readonly (readonly [string, DaemonKind, Suite, object])[] = [
  ["its own images", "bunkerd", "bookworm", {}],
  ["its own images", "bunkerd", "sid", {}],
  ["the daemon's images", "bunkerd", "sid", IMAGE_STORE],
  ["the daemon's images", "containerd-2.1", "sid", IMAGE_STORE],
];
const cases = ways.filter(([, kind]) => daemonKinds(kind).length > 0);

beforeAll(async () => {
  chmodSync(files, 0o755);
  const busybox = readFileSync(join(await debianPackage("bookworm", "busybox-static"), "bin/busybox"));
  const applets = ["sh", "cat", "echo", "sleep", "id", "mkdir", "rm"];
  const entries = applets.map((name) => ({ name: `bin/${name}`, type: "2", link: "busybox" }));
  const folders = ["bin/", "tmp/", "etc/"].map((name) => ({ name, type: "5", mode: 0o755 }));
  writeFileSync(rootfs, tar([...folders, { name: "bin/busybox", mode: 0o755, data: busybox }, ...entries]));
});

afterAll(() => {
  endNamespaces();
  removeFolder(files);
});

/** Ends with 4 when it is told to stop. */
const SERVER = 'trap "exit 4" TERM; echo started; while :; do sleep 0.05; done';

async function state(docker: Docker, name: string): Promise<string> {
  return (await docker.ok("inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", name)).trim();
}

/** Saved, removed and loaded again, by which every store of content and images is used. */
async function loadImage({ ok, folder }: Docker): Promise<void> {
  const archive = join(folder, "saved.tar");
  await ok("import", "--change", 'ENV GREETING="hello there"', rootfs, "box:1");
  await ok("save", "--output", archive, "box:1");
  await ok("rmi", "box:1");
  expect(await ok("images", "--quiet")).toBe("");
  expect(await ok("load", "--input", archive)).toContain("Loaded image: box:1");
  expect(await ok("images", "--format", "{{.Repository}}:{{.Tag}}")).toBe("box:1\n");
}

const DOCKERFILE = `
FROM box:1 AS first
RUN --mount=type=cache,target=/tmp mkdir /made && echo gone > /made/gone
COPY sent /made/
RUN rm /made/gone
FROM box:1
COPY --from=first /made /made
USER 1000
CMD ["sh", "-c", "id -u; echo /made/*; cat /made/sent"]
`;

/** By BuildKit inside dockerd, whose layers are the daemon's snapshots, content and diffs; again from its cache, and then without any of it left. */
async function build({ docker, ok, folder }: Docker): Promise<void> {
  const context = join(folder, "context");
  mkdirSync(context);
  writeFileSync(join(context, "Dockerfile"), DOCKERFILE);
  writeFileSync(join(context, "sent"), "from the context\n");
  const words = ["build", "--network=none", "--progress=plain"];
  await ok(...words, "--tag", "built:1", context);
  const run = ["run", "--rm", "--network", "none"];
  expect(await ok(...run, "built:1")).toBe("1000\n/made/sent\nfrom the context\n");
  const again = await docker(...words, "--tag", "built:2", context);
  expect(again.stderr).toMatch(/COPY --from=first [^\n]*\n#\d+ CACHED/);
  await ok("rmi", "built:1", "built:2");
  expect(await ok("builder", "prune", "--all", "--force")).toMatch(/^Total:\s+[\d.]+MB$/m);
}

describe.each(cases)("dockerd with %s on %s, docker of %s", (_images, kind, suite, config) => {
  test("loads, builds, runs, logs, execs, pauses, stops, starts, removes; goes on after kill -9", async () => {
    await using dockerd = await startDocker(kind, { suite, config });
    const { ok, docker } = dockerd;
    await loadImage(dockerd);
    if (config === IMAGE_STORE) await build(dockerd);

    const once = ["run", "--rm", "--network", "none"];
    const ran = await docker(...once, "box:1", "sh", "-c", "echo $GREETING; echo oops >&2; exit 7");
    expect(ran).toEqual({ code: 7, stdout: "hello there\n", stderr: "oops\n" });
    const limited = ["--user", "7:8", "--read-only", "--memory", "32m", "--volume", `${files}:/files:ro`];
    expect(await ok(...once, ...limited, "box:1", "sh", "-c", "id -u; id -g; echo /files/*")).toBe(
      "7\n8\n/files/rootfs.tar\n",
    );
    const missing = await docker(...once, "box:1", "nothing");
    expect(missing.code).toBe(127);
    expect(missing.stderr).toContain('exec: "nothing": executable file not found in $PATH');

    await ok("run", "--detach", "--name", "web", "--network", "host", "box:1", "sh", "-c", SERVER);
    await until("started", async () => (await ok("logs", "web")) === "started\n");
    const exec = await docker("exec", "--env", "A=b", "web", "sh", "-c", "echo $A; exit 3");
    expect(exec).toEqual({ code: 3, stdout: "b\n", stderr: "" });
    expect(await ok("exec", "--tty", "web", "echo", "terminal")).toBe("terminal\r\n");
    expect(await ok("top", "web")).toContain("trap");
    await ok("pause", "web");
    expect(await state(dockerd, "web")).toBe("paused 0");
    await ok("unpause", "web");
    await ok("update", "--memory", "64m", "--memory-swap", "64m", "web");

    const pid = await ok("inspect", "--format", "{{.State.Pid}}", "web");
    for (const kill of config === IMAGE_STORE
      ? (["killDaemon", "killBoth"] as const)
      : ["killDaemon" as const]) {
      await dockerd[kill]();
      await until(
        () => `exec after ${kill}: ${dockerd.log()}`,
        async () => (await docker("exec", "web", "echo", "still here")).stdout === "still here\n",
      );
      expect(await ok("inspect", "--format", "{{.State.Pid}}", "web")).toBe(pid);
      await ok("exec", "web", "sh", "-c", `echo ${kill} > /proc/1/fd/1`);
      await until("its output goes on", async () => (await ok("logs", "web")).endsWith(`${kill}\n`));
    }
    expect(await state(dockerd, "web")).toBe("running 0");
    await ok("stop", "web");
    expect(await state(dockerd, "web")).toBe("exited 4");
    await ok("start", "web");
    await until("started again", async () => (await ok("logs", "web")).endsWith("\nstarted\n"));
    expect((await docker("rm", "web")).code).toBe(1);
    await ok("kill", "web");
    await until("killed", async () => (await state(dockerd, "web")) === "exited 137");
    await ok("rm", "web");
    expect(await ok("ps", "--all", "--quiet")).toBe("");
    await ok("rmi", "box:1");

    expect(await dockerd.stop()).toBe(0);
    expect(leftovers(dockerd.folder, dockerd.namespace)).toEqual([]);
  });
});
