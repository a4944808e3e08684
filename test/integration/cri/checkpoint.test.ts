/** CheckpointContainer by a real CRIU: the archive is containerd 2.1's, the container runs on, and what fails or is cut off leaves nothing. */
import { afterAll, expect, setDefaultTimeout, test } from "bun:test";
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { ConnectError } from "@connectrpc/connect";
import { CheckpointContainerRequestSchema, ContainerState, NamespaceMode } from "#gen/runtime/v1/api_pb.ts";
import { Layout } from "../../support/archives.ts";
import { ctr } from "../../support/commands.ts";
import { until } from "../../support/containers.ts";
import {
  type CriDaemon,
  exited,
  logOf,
  podConfig,
  podLeftovers,
  removePods,
  runContainer,
  script,
  startCri,
} from "../../support/cri.ts";
import { useHostNetwork } from "../../support/cri-tests.ts";
import { installCriu } from "../../support/criu.ts";
import { type DaemonKind, daemonKinds } from "../../support/daemons.ts";
import { debianPackage } from "../../support/debian.ts";
import { removeFolder, run, temporaryFolder } from "../../support/processes.ts";
import { tar } from "../../support/tar.ts";

setDefaultTimeout(60_000);
useHostNetwork();

const folder = temporaryFolder();
const { problem } = await installCriu(folder);
if (problem !== undefined) process.stderr.write(`skipped: CheckpointContainer by criu: ${problem}\n`);
const PATH = process.env["PATH"] ?? "";
afterAll(() => removeFolder(folder));

/** A daemon, and so its shims and their runc, with the criu of a folder in its PATH. */
async function startWith(criu: string, ...given: Parameters<typeof startCri>): Promise<CriDaemon> {
  process.env["PATH"] = `${criu}:${PATH}`;
  try {
    return await startCri(...given);
  } finally {
    process.env["PATH"] = PATH;
  }
}

const COUNT = "echo begins; i=0; while :; do i=$((i+1)); echo $i > /count; sleep 0.02; done";
const NETWORK = { linux: { securityContext: { namespaceOptions: { network: NamespaceMode.NODE } } } };

async function startCounter(cri: CriDaemon): Promise<string> {
  const config = podConfig(cri.daemon, NETWORK);
  const { podSandboxId } = await cri.runtime.runPodSandbox({ config });
  const id = await runContainer(cri, podSandboxId, config, script("counts", COUNT));
  await until("it counts", async () => (await countOf(cri, id)) > 2);
  return id;
}

async function countOf({ runtime }: CriDaemon, containerId: string): Promise<number> {
  const { stdout } = await runtime.execSync({ containerId, cmd: ["/bin/cat", "/count"], timeout: 10n });
  return Number(Buffer.from(stdout).toString());
}

async function goesOn(cri: CriDaemon, id: string): Promise<void> {
  const before = await countOf(cri, id);
  await until("it goes on", async () => (await countOf(cri, id)) > before);
}

/** CRIU, which waits for as long as a test wants it to. */
const SLOW = `#!/bin/sh
[ "$1" != swrk ] || [ ! -e ${folder}/hold ] || touch ${folder}/works
while [ "$1" = swrk ] && [ -e ${folder}/hold ]; do sleep 0.01; done
exec ${folder}/criu "$@"
`;
mkdirSync(join(folder, "slow"));
writeFileSync(join(folder, "slow/criu"), SLOW, { mode: 0o755 });

function holdCriu() {
  rmSync(join(folder, "works"), { force: true });
  writeFileSync(join(folder, "hold"), "");
  return { works: () => existsSync(join(folder, "works")), go: () => rmSync(join(folder, "hold")) };
}

/** `code: message` of what a call fails with. */
async function failureOf(call: Promise<unknown>): Promise<string> {
  const error = await call.then(
    () => "answered",
    (failed: unknown) => failed,
  );
  return error instanceof ConnectError ? `${error.code}: ${error.rawMessage}` : String(error);
}

const request = (containerId: string, location: string, timeout = 0n) =>
  create(CheckpointContainerRequestSchema, { containerId, location, timeout });

/** Files that a checkpoint makes and that must be gone after it: in the container's folder, and beside the archive. */
function leftOf({ daemon }: CriDaemon, ...folders: readonly string[]): string[] {
  const names = readdirSync(join(daemon.root, "io.containerd.grpc.v1.cri/containers"), {
    recursive: true,
    encoding: "utf8",
  });
  return [
    ...names.filter((name) => name.includes("checkpoint")),
    ...folders.flatMap((path) => readdirSync(path)).filter((name) => name.startsWith(".checkpoint")),
  ];
}

/** What ctr lists, so that nothing is left of a checkpoint there. */
async function stored({ daemon }: CriDaemon) {
  const list = async (...args: string[]) =>
    (await ctr("2.1", daemon, "-n", "k8s.io", ...args)).stdout.trim().split("\n");
  return {
    content: await list("content", "ls", "-q"),
    images: await list("images", "ls", "-q"),
    snapshots: await list("snapshots", "ls"),
    leases: await list("leases", "ls", "-q"),
  };
}

async function unpacked(archive: string): Promise<{ readonly names: string[]; readonly path: string }> {
  const path = temporaryFolder();
  const { code, stdout, stderr } = await run(["tar", "-xvf", archive, "-C", path]);
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  return { names: stdout.trim().split("\n").sort(), path };
}

const json = (path: string, name: string) =>
  JSON.parse(readFileSync(join(path, name), "utf8")) as Record<string, unknown>;

const ANNOTATED = "docker.io/library/annotated:1";

/** An image with a shell and the annotation that says whose checkpoint it is. */
async function importAnnotated({ daemon }: CriDaemon): Promise<void> {
  const layout = new Layout();
  const shell = readFileSync(join(await debianPackage("bookworm", "busybox-static"), "bin/busybox"));
  const { digest, mediaType } = layout.image([tar([{ name: "bin/sh", mode: 0o755, data: shell }])], "amd64");
  const manifest = JSON.parse(String(layout.blobs.get(digest))) as object;
  const annotations = { "org.criu.checkpoint.container.name": "counts" };
  const target = layout.put(Buffer.from(JSON.stringify({ ...manifest, annotations })), mediaType);
  const archive = join(daemon.folder, "annotated.tar");
  const named = { ...target, annotations: { "io.containerd.image.name": ANNOTATED } };
  writeFileSync(archive, layout.archive([named]));
  const { code } = await ctr("2.1", daemon, "-n", "k8s.io", "images", "import", "--local", archive);
  expect(code).toBe(0);
}

/** containerd restored by CreateContainer from 2.1 on, behind a switch from 2.3.4 on, and not any more from 2.4 on (`cri: remove restore in CreateContainer`). */
async function nothingIsRestored(cri: CriDaemon, archive: string): Promise<void> {
  const { runtime, daemon } = cri;
  const sandboxConfig = podConfig(daemon, NETWORK);
  const { podSandboxId } = await runtime.runPodSandbox({ config: sandboxConfig });
  const before = await stored(cri);
  const folders = leftOf(cri);
  const pipe = join(daemon.folder, "pipe");
  expect((await run(["mkfifo", pipe])).code).toBe(0);
  symlinkSync(archive, join(daemon.folder, "link.tar"));
  const paths = [
    archive,
    join(daemon.folder, "link.tar"),
    pipe,
    daemon.folder,
    "/dev/zero",
    "/proc/self/exe",
  ];
  for (const path of paths) {
    const config = script("again", COUNT, { image: { image: path } });
    expect(await failureOf(runtime.createContainer({ podSandboxId, config, sandboxConfig }))).toBe(
      `5: failed to resolve image "${path}": not found`,
    );
  }
  const { containers } = await runtime.listContainers({ filter: { podSandboxId } });
  expect(containers).toEqual([]);
  expect(leftOf(cri)).toEqual(folders);
  const { content: _, ...after } = await stored(cri);
  expect(before).toMatchObject(after);

  // The name is free, and an image is an image, whatever it is annotated with.
  await importAnnotated(cri);
  const config = script("again", "echo ordinary; exit 7", { image: { image: ANNOTATED } });
  const id = await runContainer(cri, podSandboxId, sandboxConfig, config);
  expect(await exited(cri, id)).toMatchObject({ exitCode: 7, image: { image: ANNOTATED }, annotations: {} });
  expect(logOf(sandboxConfig, config)).toBe("ordinary\n");
}

/** Of each daemon, to be compared: names without the numbers that CRIU gives, the fields of documents, what the root file system's changes are. */
const seen = new Map<DaemonKind, unknown>();
const kinds = daemonKinds("containerd-2.1", "bunkerd").map((kind) => [kind] as const);

test.if(problem === undefined).each(kinds)("%s: a checkpoint of a container that runs on", async (kind) => {
  await using cri = await startWith(folder, kind);
  const id = await startCounter(cri);
  const location = join(cri.daemon.folder, "counts.tar");
  const before = await stored(cri);
  await cri.runtime.checkpointContainer(request(id, location, 60n));
  await goesOn(cri, id);
  const { status } = await cri.runtime.containerStatus({ containerId: id });
  expect(status?.state).toBe(ContainerState.CONTAINER_RUNNING);
  expect(statSync(location).mode & 0o7777).toBe(0o600);

  const { names, path } = await unpacked(location);
  const config = json(path, "config.dump");
  expect(config["id"]).toBe(id);
  expect(new Date(String(config["checkpointedTime"])).getTime()).toBeGreaterThan(Date.now() - 60_000);
  expect(json(path, "status.dump")).toMatchObject({ id, state: 1 });
  expect(json(path, "spec.dump")).toMatchObject({ process: { args: ["/bin/sh", "-c", COUNT] } });
  expect(readFileSync(join(path, "container.log"), "utf8")).toEndWith(" stdout F begins\n");
  expect(readFileSync(join(path, "dump.log"), "utf8")).toContain("Dumping finished successfully");
  const changed = await run(["tar", "-tzf", join(path, "rootfs-diff.tar")]);
  expect(changed.stdout).toContain("count\n");
  const { id: _, name: _name, createdTime: _created, checkpointedTime: _time, ...same } = config;
  seen.set(kind, {
    names: [...new Set(names.map((name) => name.replaceAll(/-\d+/g, "-N")))],
    config: { keys: Object.keys(config), same },
    status: Object.keys(json(path, "status.dump")).filter((key) => !/image_id|stop_signal/.test(key)),
    kept: Object.keys(json(path, "status")).filter((key) => key !== "Restore"),
    changed: changed.stdout,
  });
  if (kind === "bunkerd") {
    expect(leftOf(cri, cri.daemon.folder)).toEqual([]);
    const { content, ...after } = await stored(cri);
    expect({ ...after, content: [] }).toEqual({ ...before, content: [] });
    // The import's archive is collected meanwhile.
    expect(content.filter((digest) => !before.content.includes(digest))).toEqual([]);
  }
  // A containerd that was named is taken for the next release.
  if (kind === "bunkerd" || process.env["BUNKERD_TEST_CONTAINERD"] !== undefined)
    await nothingIsRestored(cri, location);
  removeFolder(path);
});

test.if(problem === undefined && kinds.length === 2)("both archives hold the same", () => {
  expect(seen.get("bunkerd")).toEqual(seen.get("containerd-2.1"));
});

test.if(problem === undefined)("what cannot be checkpointed is told, and nothing is written", async () => {
  await using cri = await startWith(join(folder, "slow"), "bunkerd");
  const { runtime } = cri;
  const id = await startCounter(cri);
  const own = join(cri.daemon.folder, "own");
  mkdirSync(own);
  const at = (name: string): string => join(own, name);
  const fails = (location: string, timeout = 0n) =>
    failureOf(runtime.checkpointContainer(request(id, location, timeout)));
  expect(await failureOf(runtime.checkpointContainer(request("none", at("a"))))).toMatch(
    /^5: an error occurred when trying to find container .*"none": not found$/,
  );
  expect(await fails("a.tar")).toBe('3: checkpoint location "a.tar" is not absolute');
  expect(await fails(own)).toBe(`2: open ${own}: is a directory`);
  expect(await fails(at("none/a"))).toBe(`2: open ${at("none/a")}: no such file or directory`);
  expect(await fails("/proc/a")).toBe("2: open /proc/a: no such file or directory");
  expect(await fails("/dev/full")).toBe('3: checkpoint location "/dev/full" is no regular file');
  mkdirSync(at("small"));
  expect(await run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", at("small")])).toMatchObject({
    code: 0,
  });
  try {
    expect(await fails(at("small/a"))).toBe(`2: write ${at("small/a")}: no space left on device`);
    await run(["mount", "-o", "remount,ro", at("small")]);
    expect(await fails(at("small/a"))).toBe(`2: open ${at("small/a")}: read-only file system`);
    expect(readdirSync(at("small"))).toEqual([]);
  } finally {
    await run(["umount", at("small")]);
  }
  await goesOn(cri, id);

  // Whose time is up, and who leaves, while CRIU works: nothing is where they wanted it.
  for (const how of ["time", "leave"] as const) {
    const slow = holdCriu();
    const leaving = new AbortController();
    const { signal } = leaving;
    const call = failureOf(
      runtime.checkpointContainer(request(id, at("a"), how === "time" ? 1n : 0n), { signal }),
    );
    await until("CRIU works", slow.works);
    if (how === "leave") leaving.abort();
    expect(await call).toMatch(how === "time" ? /^4: context deadline exceeded$/ : /^1: /);
    slow.go();
    await until("nothing is left of it", () => leftOf(cri, own).length === 0);
    expect(readdirSync(own)).toEqual(["small"]);
    await goesOn(cri, id);
  }

  // Two at once, the one through a link, on what is there already.
  writeFileSync(at("old"), "old".repeat(1 << 20));
  symlinkSync("old", at("link"));
  await Promise.all(["link", "new"].map((name) => runtime.checkpointContainer(request(id, at(name)))));
  expect(readdirSync(own).sort()).toEqual(["link", "new", "old", "small"]);
  expect((await run(["tar", "-tf", at("old")])).stdout).toContain("config.dump\n");
  await goesOn(cri, id);

  await runtime.stopContainer({ containerId: id });
  expect(await fails(at("a"))).toBe(
    `2: container "${id}" is in CONTAINER_EXITED state. only CONTAINER_RUNNING containers can be checkpointed`,
  );
  expect(leftOf(cri, own)).toEqual([]);
});

test("without criu, with one that is too old and with one that fails", async () => {
  const path = temporaryFolder();
  const criu = join(path, "criu");
  const failed = '2: failed to checkpoint container "a": ';
  writeFileSync(criu, "#!/bin/sh\necho Version: 3.15\n", { mode: 0o755 });
  await using cri = await startWith(path, "bunkerd", { folder: temporaryFolder() });
  const told = () => failureOf(cri.runtime.checkpointContainer(request("a", "/a")));
  expect(await told()).toBe(
    `${failed}checkpoint/restore requires at least CRIU 31600, current version is 31500`,
  );
  writeFileSync(criu, "#!/bin/sh\nexit 3\n");
  expect(await told()).toBe(`${failed}failed to retrieve criu version: exit status 3`);
  rmSync(criu);
  if (Bun.which("criu") === null)
    expect(await told()).toBe(`${failed}criu binary not found in shim path or system PATH`);
  removeFolder(path);
});

test.if(problem === undefined)(
  "killed amid it, the next daemon lets the container go on and tidies up",
  async () => {
    const at = (step: string) => ({ BUNKERD_FAILPOINTS: `cri.checkpoint.${step}=kill@1` });
    const slow = join(folder, "slow");
    let cri = await startWith(slow, "bunkerd", { env: at("paused") });
    const id = await startCounter(cri);
    const own = join(cri.daemon.folder, "own");
    mkdirSync(own);
    const begin = () => failureOf(cri.runtime.checkpointContainer(request(id, join(own, "a"))));
    const next = async (env: Record<string, string>): Promise<void> => {
      await cri.daemon.exited;
      expect(leftOf(cri, own)).not.toEqual([]);
      cri.close();
      cri = await startWith(slow, "bunkerd", { folder: cri.daemon.folder, env });
      await goesOn(cri, id);
      expect(leftOf(cri, own)).toEqual([]);
      expect(readdirSync(own)).toEqual([]);
    };
    try {
      await begin();
      await next({});

      const held = holdCriu();
      const call = begin();
      await until("CRIU works", held.works);
      await cri.daemon.kill();
      held.go();
      await call;
      await next(at("publish"));

      await begin();
      await next({});
      await removePods(cri.runtime);
      expect(podLeftovers(cri.daemon)).toEqual([]);
    } finally {
      await cri[Symbol.asyncDispose]();
    }
  },
);
