/** What pods and containers of one daemon have on the machine and in the daemon's stores, each thing with whose it is. */
import { existsSync, readdirSync, readFileSync, rmdirSync } from "node:fs";
import { join } from "node:path";
import { Containers } from "#gen/containerd/services/containers/v1/containers_pb.ts";
import { Leases } from "#gen/containerd/services/leases/v1/leases_pb.ts";
import { Store } from "#gen/containerd/services/sandbox/v1/sandbox_pb.ts";
import { Kind, Snapshots } from "#gen/containerd/services/snapshots/v1/snapshots_pb.ts";
import { shimsOf, socketOf } from "./containers.ts";
import type { CriDaemon } from "./cri.ts";
import { inNamespace } from "./grpc.ts";
import { output } from "./processes.ts";

const ID = /[0-9a-f]{64}/;
const SCOPE = inNamespace("k8s.io");

/** Something that is there, and the id of the pod or container that it is there for; undefined if nothing says which. */
export interface Trace {
  readonly what: string;
  readonly of: string | undefined;
}

/** What the daemon's stores tell. */
export interface Records {
  readonly pods: readonly string[];
  readonly containers: readonly string[];
  /** Network namespaces of the pods, by path. */
  readonly networks: ReadonlyMap<string, string>;
  /** Leases that are no pod's and have no time left. */
  readonly endless: readonly string[];
  readonly traces: readonly Trace[];
}

const entries = (path: string): string[] => (existsSync(path) ? readdirSync(path) : []);
const idIn = (text: string): string | undefined => ID.exec(text)?.[0];

/** Records, leases and snapshots of the daemon. */
export async function recordsOf(cri: CriDaemon): Promise<Records> {
  const { containers } = await cri.client(Containers).list({}, SCOPE);
  const { list } = await cri.client(Store).list({}, SCOPE);
  const { leases } = await cri.client(Leases).list({}, SCOPE);
  const active: string[] = [];
  for await (const { info } of cri.client(Snapshots).list({ snapshotter: "overlayfs" }, SCOPE))
    active.push(...info.filter(({ kind }) => kind === Kind.ACTIVE).map(({ name }) => name));
  const ofKind = (kind: string) =>
    containers.filter(({ labels }) => labels["io.cri-containerd.kind"] === kind).map(({ id }) => id);
  const networks = list.map(({ sandboxId, extensions }): [string, string] => {
    const metadata = Buffer.from(extensions["metadata"]?.value ?? []).toString();
    return [JSON.parse(metadata || "{}").Metadata?.NetNSPath ?? "", sandboxId];
  });
  const trace = (kind: string) => (id: string) => ({ what: `${kind} ${id}`, of: idIn(id) });
  const timed = leases.filter(({ id }) => !ID.test(id));
  return {
    pods: list.map(({ sandboxId }) => sandboxId).sort(),
    containers: ofKind("container").sort(),
    networks: new Map(networks),
    endless: timed
      .filter(({ labels }) => !(Date.parse(labels["containerd.io/gc.expire"] ?? "") > Date.now()))
      .map(({ id }) => id),
    traces: [
      ...ofKind("sandbox").map(trace("pause container")),
      ...leases.filter(({ id }) => ID.test(id)).map(({ id }) => trace("lease")(id)),
      // Those that are being unpacked go with the lease of who began it.
      ...active.filter((name) => !name.startsWith("extract-")).map(trace("snapshot")),
    ],
  };
}

/** Everything on the machine that was made for pods of the daemon in this folder, whose pods have this control group as their parent. */
export async function machineTraces(
  folder: string,
  cgroup: string,
  networks: ReadonlyMap<string, string>,
): Promise<readonly Trace[]> {
  const list = (kind: string, path: string, only = /./): Trace[] =>
    entries(path)
      .filter((name) => only.test(name))
      .map((name) => ({ what: `${kind} ${join(path, name)}`, of: idIn(name) }));
  const network = `net-${folder.slice(-6)}`;
  const ipam = join(folder, "ipam", network);
  const bundles = ["root", "state"].flatMap((part) =>
    list("bundle", join(folder, part, "io.containerd.runtime.v2.task/k8s.io")),
  );
  const folders = ["root", "state"].flatMap((part) =>
    ["sandboxes", "containers", "image-volumes"].flatMap((name) =>
      list("folder", join(folder, part, "io.containerd.grpc.v1.cri", name)),
    ),
  );
  const netns = entries(join(folder, "state/io.containerd.grpc.v1.cri/netns")).map((name) => {
    const path = join(folder, "state/io.containerd.grpc.v1.cri/netns", name);
    return { what: `network namespace ${path}`, of: networks.get(path) };
  });
  return [
    ...mounts(folder, networks),
    ...netns,
    ...entries(ipam)
      .filter((name) => name.startsWith("10."))
      .map((name) => ({ what: `address ${name}`, of: idIn(readFileSync(join(ipam, name), "utf8")) })),
    ...entries("/sys/fs/cgroup").flatMap((controller) =>
      list("cgroup", join("/sys/fs/cgroup", controller, cgroup), ID),
    ),
    ...shimsOf("k8s.io")
      .filter(({ address }) => address === join(folder, "d.sock"))
      .map(({ pid, id }) => ({ what: `shim ${pid} ${id}`, of: id })),
    ...list("result", "/var/lib/cni/results", new RegExp(`^${network}-`)),
    ...runcStates(folder),
    ...bundles,
    ...folders,
    ...list("mount for a moment", join(folder, "root/tmpmounts")),
  ];
}

function mounts(folder: string, networks: ReadonlyMap<string, string>): Trace[] {
  return readFileSync("/proc/self/mounts", "utf8")
    .split("\n")
    .map((line) => line.split(" ")[1] ?? "")
    .filter((point) => point.startsWith(`${folder}/`))
    .map((point) => ({ what: `mount ${point}`, of: networks.get(point) ?? idIn(point) }));
}

/** runc's folder is the machine's: what it knows of our bundles. */
function runcStates(folder: string): Trace[] {
  const base = "/run/containerd/runc/k8s.io";
  return entries(base)
    .filter((id) => {
      try {
        return readFileSync(join(base, id, "state.json"), "utf8").includes(`${folder}/`);
      } catch {
        return false;
      }
    })
    .map((id) => ({ what: `runc's state ${id}`, of: id }));
}

/** The empty parent of pods, which daemons leave alone. @throws if something is in it */
export function removeCgroup(cgroup: string): void {
  const tops = new Set(["/", ...ownCgroups()]);
  for (const controller of ["", ...entries("/sys/fs/cgroup")]) {
    for (const top of tops) {
      const path = join("/sys/fs/cgroup", controller, top, cgroup);
      if (existsSync(path)) rmdirSync(path);
    }
  }
}

/** Where this process is: runc makes there what has no absolute path. */
function ownCgroups(): string[] {
  const lines = readFileSync("/proc/self/cgroup", "utf8").trim().split("\n");
  return lines.map((line) => line.replace(/^\d+:[^:]*:/, ""));
}

/** Interfaces of pods on the host's side. */
export async function interfaces(): Promise<string[]> {
  return (await output(["ip", "-o", "link", "show", "type", "veth"])).match(/veth\w+/g) ?? [];
}

/** Sockets of shims that were once there for these pods. */
export function shimSockets(folder: string, pods: Iterable<string>): string[] {
  const sockets = [...pods].map((id) => socketOf(join(folder, "d.sock"), "k8s.io", id));
  return sockets.filter((path) => existsSync(path));
}
