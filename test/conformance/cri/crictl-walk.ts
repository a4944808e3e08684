/** Every command of crictl, each with what an operator gives it, on one node's daemon. */
import { mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { run } from "../../support/processes.ts";
import type { CrictlSession } from "./crictl-session.ts";

export const BUSYBOX = "registry.k8s.io/e2e-test-images/busybox:1.29-2";
const NGINX = "registry.k8s.io/e2e-test-images/nginx:1.14-2";
const TAGGED = "gcr.io/k8s-staging-cri-tools/test-image-tags";
/** Of every pod; the caller's to remove. */
export const CGROUP_PARENT = "/bunkerd-crictl";
const LISTS = ["", "-o=json", "-o=yaml"];

/** A registry that wants a name and a password, and an image there. */
export interface Private {
  readonly image: string;
  readonly credentials: string;
}

interface Files {
  pod(name: string, rest?: object): string;
  container(name: string, command: readonly string[], rest?: object): string;
}

/** Configurations of pods and containers as files, named by what they are. */
function filesIn(folder: string): Files {
  const write = (name: string, value: object): string => {
    const path = join(folder, `${name}.json`);
    writeFileSync(path, JSON.stringify(value));
    return path;
  };
  return {
    pod: (name, rest = {}) =>
      write(`pod-${name}`, {
        metadata: { name, uid: `uid-${name}`, namespace: "crictl", attempt: 1 },
        hostname: name,
        log_directory: join(folder, "logs", name),
        labels: { app: name },
        annotations: { note: "from crictl" },
        linux: { cgroup_parent: CGROUP_PARENT },
        ...rest,
      }),
    container: (name, command, rest = {}) =>
      write(`container-${name}`, {
        metadata: { name, attempt: 0 },
        image: { image: BUSYBOX },
        command,
        log_path: `${name}.log`,
        labels: { part: name },
        linux: { resources: { memory_limit_in_bytes: 67_108_864, cpu_shares: 512 } },
        ...rest,
      }),
  };
}

const shell = (text: string): readonly string[] => ["sh", "-c", text];
const LASTING = shell("trap 'exit 3' TERM; echo up; while :; do sleep 0.1; done");

async function configuration(session: CrictlSession): Promise<void> {
  const endpoint = `unix://${session.daemon.socket}`;
  await session.call([
    "config",
    "--set",
    `runtime-endpoint=${endpoint},image-endpoint=${endpoint},timeout=30`,
  ]);
  await session.call(["config", "--get", "image-endpoint"]);
  await session.call(["config", "--list"]);
  for (const name of ["bash", "zsh", "fish"]) {
    await session.call(["completion", name]);
  }
  await session.call(["version"]);
  await session.call(["--runtime-endpoint", endpoint, "--image-endpoint", endpoint, "version"]);
  await session.call(["--timeout=1s", "--runtime-endpoint", "unix:///nonexistent.sock", "version"]);
  await session.call(["info"]);
  await session.call(["info", "-o=yaml", "-q"]);
  await session.call(["info", "-o=go-template", "--template={{.status.conditions}}"]);
  await session.call(["runtime-config"]);
  await session.call(["update-runtime-config", "--pod-cidr=10.88.0.0/16"]);
  await session.call(["metricdescs"]);
  await session.call(["metricdescs", "-o=yaml"]);
}

async function images(session: CrictlSession, files: Files, secret: Private): Promise<void> {
  const missing = "registry.k8s.io/missing:1";
  const digest = /@(sha256:[0-9a-f]{64})/;
  await session.call(["pull", BUSYBOX]);
  await session.call(["pull", "--annotation=a=b", "--pull-timeout=60s", NGINX]);
  await session.call(["pull", "--pod-config", files.pod("pull"), `${TAGGED}:1`]);
  await session.call(["pull", `${TAGGED}:2`]);
  await session.call(["pull", missing]);
  await session.call(["pull", "Not A Name"]);
  await session.call(["pull", secret.image]);
  await session.call(["pull", "--creds=kubelet:wrong", secret.image]);
  await session.call(["pull", "--creds", secret.credentials, secret.image]);
  await session.call(["rmi", secret.image]);
  await session.call(["pull", "--auth", Buffer.from(secret.credentials).toString("base64"), secret.image]);
  const [, byDigest = ""] = digest.exec(await session.call(["inspecti", BUSYBOX])) ?? [];
  await session.call(["pull", `${BUSYBOX.split(":")[0]}@${byDigest}`]);
  for (const output of LISTS) await session.call(["images", ...(output === "" ? [] : [output])]);
  for (const flag of ["-v", "-q", "--digests", "--no-trunc", "--pinned"])
    await session.call(["images", flag]);
  for (const name of [BUSYBOX, BUSYBOX.split(":")[0] ?? "", TAGGED]) await session.call(["images", name]);
  for (const filter of ["dangling=true", "reference=nginx", `before=${NGINX}`, `since=${NGINX}`]) {
    await session.call(["images", "--filter", filter]);
  }
  const id = (await session.call(["images", "-q", "--no-trunc", BUSYBOX])).replace("sha256:", "");
  for (const name of [id.slice(0, 12), id, `sha256:${id}`, `${BUSYBOX.split(":")[0]}@${byDigest}`]) {
    await session.call(["inspecti", "-q", name]);
  }
  await session.call(["inspecti", "-o=table", NGINX]);
  await session.call(["inspecti", "-o=go-template", "--template={{.status.repoTags}}", NGINX]);
  await session.call(["inspecti", missing]);
  await session.call(["imagefsinfo"]);
  await session.call(["imagefsinfo", "-o=table"]);
  await session.call(["rmi", `${TAGGED}:1`, missing]);
  await session.call(["rmi", id.slice(0, 12)]);
  await session.call(["images"]);
  await session.call(["pull", BUSYBOX]);
}

/** The pod that later parts use. */
async function pods(session: CrictlSession, files: Files): Promise<string> {
  const config = files.pod("web", {
    port_mappings: [{ container_port: 80 }],
    dns_config: { servers: ["10.0.0.9"] },
  });
  const pod = await session.callForId("web", ["runp", "--cancel-timeout=60s", config]);
  await session.call(["runp", config]);
  await session.call(["runp", "-r", "nobody", files.pod("other")]);
  writeFileSync(join(session.daemon.folder, "bad.json"), "{");
  await session.call(["runp", "bad.json"]);
  await session.callForId("host", [
    "runp",
    "-r=runc",
    files.pod("host", {
      hostname: "",
      linux: { cgroup_parent: CGROUP_PARENT, security_context: { namespace_options: { network: 2 } } },
    }),
  ]);
  for (const output of LISTS) await session.call(["pods", ...(output === "" ? [] : [output])]);
  for (const flags of [
    ["-q"],
    ["-v"],
    ["--no-trunc"],
    ["--id", pod.slice(0, 8)],
    ["--name=we."],
    ["--namespace=crictl", "--state=ready"],
    ["--state=NotReady"],
    ["--label=app=web"],
    ["--latest"],
    ["--last=1"],
  ]) {
    await session.call(["pods", ...flags]);
  }
  await session.call(["inspectp", pod]);
  await session.call(["inspectp", "-q", "-o=yaml", pod]);
  await session.call(["inspectp", "-o=table", pod]);
  await session.call([
    "inspectp",
    "--name=host",
    "-o=go-template",
    "--template={{.status.linux.namespaces.options}}",
  ]);
  await session.call(["inspectp", "0123456789ab"]);
  return pod;
}

async function containers(session: CrictlSession, files: Files, pod: string): Promise<string> {
  const podConfig = join(session.daemon.folder, "pod-web.json");
  const main = files.container("main", LASTING);
  const id = await session.callForId("main", ["create", pod, main, podConfig]);
  await session.call(["create", pod, main, podConfig]);
  await session.call(["create", "0123456789ab", main, podConfig]);
  await session.call([
    "create",
    pod,
    files.container("x", ["x"], { image: { image: "missing:1" } }),
    podConfig,
  ]);
  await session.call([
    "create",
    "--with-pull",
    pod,
    files.container("y", ["y"], { image: { image: "127.0.0.1:5000/missing:1" } }),
    podConfig,
  ]);
  await session.call(["ps", "-a"]);
  await session.call(["start", id]);
  await session.call(["start", id]);
  await session.call(["start", "0123456789ab"]);
  const bad = await session.callForId("bad", [
    "create",
    "--no-pull",
    pod,
    files.container("bad", ["/missing"]),
    podConfig,
  ]);
  await session.call(["start", bad]);
  await session.call(["inspect", "-q", bad]);
  await session.call(["rm", bad]);
  for (const output of LISTS) await session.call(["ps", ...(output === "" ? [] : [output])]);
  for (const flags of [
    ["-q"],
    ["-v"],
    ["--no-trunc", "-r"],
    ["--id", id.slice(0, 8)],
    ["--name=mai."],
    ["--pod", pod.slice(0, 8)],
    ["--state=running"],
    ["--state=exited"],
    ["--image", BUSYBOX],
    ["--label=part=main"],
    ["--namespace=crictl"],
    ["--latest"],
    ["--last=1"],
  ]) {
    await session.call(["ps", ...flags]);
  }
  await session.call(["inspect", id]);
  await session.call(["inspect", "-q", "-o=yaml", id]);
  await session.call(["inspect", "-o=table", id]);
  await session.call(["inspect", "--latest", "-o=go-template", "--template={{.status.state}}"]);
  await session.call(["inspect", "0123456789ab"]);
  return id;
}

async function inside(session: CrictlSession, files: Files, pod: string, id: string): Promise<void> {
  for (const transport of ["spdy", "websocket"]) {
    const exec = ["exec", `--transport=${transport}`];
    await session.call([...exec, id, "sh", "-c", "echo out; echo err >&2; exit 4"]);
    await session.call([...exec, "-i", id, "cat"], { stdin: "over there\n" });
    await session.call([...exec, "-i", "-t", id, "sh", "-c", "tty; echo on a terminal; exit 5"], {
      terminal: true,
    });
    await session.call([...exec, id, "missing"]);
  }
  await session.call(["exec", "--sync", id, "sh", "-c", "echo out; echo err >&2; exit 6"]);
  await session.call(["exec", "--sync", "--timeout=1", id, "sleep", "1000"]);
  await session.call(["exec", "--sync", id, "missing"]);
  await session.call(["exec", "--sync", "--name=main", "echo", "by name"]);
  await session.call(["exec", "0123456789ab", "true"]);
  await session.call(["exec", id, "cat", "/etc/hosts", "/etc/resolv.conf", "/etc/hostname"]);

  const podConfig = join(session.daemon.folder, "pod-web.json");
  for (const [name, rest, flags] of [
    ["echo", { stdin: true, stdin_once: true }, ["-i"]],
    ["terminal", { stdin: true, tty: true }, ["-i", "-t"]],
  ] as const) {
    const config = files.container(name, shell("read line; echo read $line; exit 7"), rest);
    const container = await session.callForId(name, ["create", pod, config, podConfig]);
    await session.call(["start", container]);
    await session.call(["attach", ...flags, container], { stdin: "a line\n", terminal: name === "terminal" });
    await untilState(session, container, "CONTAINER_EXITED");
    await session.call([
      "inspect",
      "-o=go-template",
      "--template={{.status.exitCode}} {{.status.reason}}",
      container,
    ]);
    await session.call(["attach", container]);
  }
}

async function untilState(session: CrictlSession, id: string, state: string): Promise<void> {
  const deadline = performance.now() + 30_000;
  const steps = session.steps.length;
  for (;;) {
    const seen = await session.call(["inspect", "-q", "-o=go-template", "--template={{.status.state}}", id]);
    session.steps.length = steps;
    if (seen === state) return;
    if (performance.now() > deadline) throw new Error(`${id} is ${seen}, not ${state}`);
    await Bun.sleep(50);
  }
}

async function logs(session: CrictlSession, files: Files, pod: string): Promise<void> {
  const podConfig = join(session.daemon.folder, "pod-web.json");
  const path = join(session.daemon.folder, "logs/web/writer.log");
  const text =
    "for n in 1 2 3 4; do echo line $n; done; sleep 0.5; echo to stderr >&2; while [ ! -e /go ]; do sleep 0.1; done; echo last";
  const id = await session.callForId("writer", [
    "create",
    pod,
    files.container("writer", shell(text)),
    podConfig,
  ]);
  await session.call(["start", id]);
  const following = session.follow(["logs", "-f", id]);
  await following.line("to stderr");
  await session.call(["logs", "--tail=2", id]);
  await session.call(["logs", "--stream=stderr", id]);
  await session.call(["logs", "--timestamps", "--limit-bytes=70", id]);
  await session.call(["logs", "--since=1h", id]);
  await session.call(["logs", "--previous", id]);
  renameSync(path, `${path}.1`);
  await session.call(["logs", "--reopen", id]);
  await session.call(["exec", "--sync", id, "touch", "/go"]);
  await following.line("last");
  await following.end();
  await untilState(session, id, "CONTAINER_EXITED");
  session.note("the file of before", readFileSync(`${path}.1`, "utf8"));
  session.note("the file of after", readFileSync(path, "utf8"));
  await session.call(["logs", "--reopen", id]);
  await session.call(["logs", "0123456789ab"]);
}

/** The size of a container's files is looked at every ten seconds. */
async function untilCollected(session: CrictlSession, id: string): Promise<void> {
  const deadline = performance.now() + 30_000;
  const steps = session.steps.length;
  for (;;) {
    const seen = await session.call(["stats", "-o=json", "--id", id]);
    session.steps.length = steps;
    const [{ writableLayer }] = JSON.parse(seen).stats;
    if (Number(writableLayer?.timestamp ?? 0) > 0) return;
    if (performance.now() > deadline) throw new Error(`no size: ${seen}`);
  }
}

async function numbers(session: CrictlSession, pod: string, id: string): Promise<void> {
  await session.call([
    "update",
    "--memory=134217728",
    "--cpu-share=256",
    "--cpu-quota=50000",
    "--cpu-period=100000",
    id,
  ]);
  await session.call(["inspect", "-o=go-template", "--template={{.status.resources.linux}}", id]);
  await session.call([
    "exec",
    "--sync",
    id,
    "cat",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
    "/sys/fs/cgroup/cpu/cpu.shares",
  ]);
  await session.call(["update", "--cpuset-cpus=777", id]);
  await session.call(["update", "0123456789ab"]);
  const measured = { measured: true };
  await untilCollected(session, id);
  for (const flags of [
    [],
    ["-o=json"],
    ["-o=yaml"],
    ["--id", id],
    ["--pod", pod.slice(0, 8)],
    ["--label=part=main"],
  ]) {
    // Of one container: their order is a Go map's.
    await session.call(["stats", ...(flags.length === 2 ? flags : [...flags, id.slice(0, 8)])], measured);
  }
  await session.call(["stats", "-a", "--id", "0123456789ab"], measured);
  for (const flags of [[], ["-o=json"], ["-o=yaml"]]) {
    await session.call(["statsp", "--label=app=host", ...flags], measured);
  }
  await session.call(["statsp", "--id", pod], measured);
  await session.call(["metricsp"], measured);
  await session.call(["checkpoint", "--export", join(session.daemon.folder, "checkpoint.tar"), id]);
}

/** Whom `crictl port-forward` listens for is told by its first line. */
async function forward(session: CrictlSession, files: Files, pod: string): Promise<void> {
  const server = files.container("server", shell("echo welcome > /www/page; exec httpd -f -p 80 -h /www"));
  const id = await session.callForId("server", [
    "create",
    pod,
    server,
    join(session.daemon.folder, "pod-web.json"),
  ]);
  await session.call(["start", id]);
  const ready = [
    "exec",
    "--sync",
    id,
    "sh",
    "-c",
    "until wget -q -O - http://127.0.0.1/page; do sleep 0.1; done",
  ];
  await session.call(ready);
  for (const transport of ["spdy", "websocket"]) {
    const following = session.follow(["port-forward", `--transport=${transport}`, pod, "18080:80"]);
    await following.line("orward");
    const fetched = await run(["curl", "--silent", "--max-time", "5", "http://127.0.0.1:18080/page"]);
    session.note("curl", fetched.stdout);
    await following.end();
  }
  await session.call(["port-forward", "0123456789ab", "18080:80"]);
}

async function ends(session: CrictlSession, files: Files, pod: string, id: string): Promise<void> {
  const events = session.follow([
    "events",
    "-o=go-template",
    "--template={{.containerEventType}} {{.containerId}}",
  ]);
  const config = files.container("once", shell("echo once"));
  const host = files.pod("run");
  const once = await session.callForId("once", ["run", "--no-pull", config, host]);
  await untilState(session, once, "CONTAINER_EXITED");
  await session.call(["logs", once]);
  await session.call(["rm", once]);
  await events.line(`CONTAINER_DELETED_EVENT ${once}`);
  await events.end();
  await session.call([
    "run",
    "--with-pull",
    files.container("none", ["x"], { image: { image: "127.0.0.1:5000/none:1" } }),
    files.pod("none"),
  ]);
  await session.call(["rmi", BUSYBOX]);
  await session.call(["pull", BUSYBOX]);
  await session.call(["rm", id]);
  await session.call(["stop", "--timeout=10", id]);
  await session.call(["stop", id]);
  await session.call(["stop", "0123456789ab"]);
  await session.call(["inspect", "-q", id]);
  await session.call(["exec", "--sync", id, "true"]);
  await session.call(["start", id]);
  await session.call(["stats", id]);
  await session.call(["update", "--memory=134217728", id]);
  await session.call(["rm", "--keep-logs", id]);
  await session.call(["rm", id]);
  await session.call(["rm", "-f", "-a"], { sorted: true });
  await session.call(["ps", "-a"]);
  await session.call(["rmp", pod]);
  await session.call(["stopp", pod]);
  await session.call(["stopp", pod]);
  await session.call(["pods", "--state=NotReady"]);
  await session.call(["inspectp", "-q", pod]);
  await session.call(["statsp", "--id", pod]);
  await session.call(["create", pod, config, join(session.daemon.folder, "pod-web.json")]);
  await session.call(["rmp", pod]);
  await session.call(["rmp", pod]);
  await session.call(["stopp", pod]);
  await session.call(["rmp", "-f", "-a"], { sorted: true });
  await session.call(["pods"]);
  await session.call(["rmi", "--prune"], { sorted: true });
  await session.call(["rmi", "--all"], { sorted: true });
  await session.call(["images"]);
  await session.call(["info", "-o=go-template", "--template={{.status.conditions}}"]);
}

/** Walks from a fresh daemon to one that has nothing left. */
export async function walk(session: CrictlSession, secret: Private): Promise<void> {
  mkdirSync(join(session.daemon.folder, "logs"));
  const files = filesIn(session.daemon.folder);
  await configuration(session);
  await images(session, files, secret);
  const pod = await pods(session, files);
  const id = await containers(session, files, pod);
  await inside(session, files, pod, id);
  await logs(session, files, pod);
  await numbers(session, pod, id);
  await forward(session, files, pod);
  await ends(session, files, pod, id);
}
