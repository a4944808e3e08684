/** Images that are mounted into containers as volumes (`internal/cri/server/container_image_mount.go`). */
import { existsSync, mkdirSync, readdirSync, rmdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { clone } from "@bufbuild/protobuf";
import type { Mount as SnapshotMount } from "#gen/containerd/types/mount_pb.ts";
import { type ContainerConfig, ContainerConfigSchema, type Mount } from "#gen/runtime/v1/api_pb.ts";
import { mountWithIds } from "../../diff/mounts.ts";
import { mountPointsBelow, unmountBelow } from "../../linux/mountinfo.ts";
import { BunkerdError, isError, messageOf, quote, within } from "../../model/errors.ts";
import type { Labels } from "../../model/labels.ts";
import type { Scope } from "../../model/scope.ts";
import { LABEL_GID_MAPPING, LABEL_UID_MAPPING, type SnapshotStore } from "../../model/snapshots.ts";
import { type Cri, scopeOf } from "../cri.ts";
import type { LocalImage } from "../images/local-images.ts";
import { imageVolumesPath } from "../paths.ts";
import { ignoringNotFound, snapshotterOf } from "../records.ts";
import { pathWithinRoot } from "./root-path.ts";

/** What the kubelet knows the failure by (`cri-api/pkg/errors`). */
const FAILURE = "failed to mount image volume: ImageVolumeMountFailed";

/** The configuration with a host path for each image that is to be mounted. Mounted once for all of the pod's containers. @throws Unknown */
export async function mountImages(
  cri: Cri,
  config: ContainerConfig,
  snapshotter: string,
  sandbox: { readonly id: string; readonly pid: number },
  signal: AbortSignal,
): Promise<ContainerConfig> {
  if (!config.mounts.some(({ image }) => (image?.image ?? "") !== "" || image !== undefined)) return config;
  const mounted = clone(ContainerConfigSchema, config);
  await ensureLease(cri, sandbox.id);
  const scope: Scope = { ...scopeOf(signal), lease: sandbox.id };
  for (const mount of mounted.mounts) {
    if (mount.image === undefined) continue;
    try {
      mount.hostPath = await mountImage(cri, mount, snapshotter, sandbox, scope);
    } catch (error) {
      throw within(FAILURE, error);
    }
    // The snapshot shows the pod's users already.
    mount.uidMappings = [];
    mount.gidMappings = [];
  }
  return mounted;
}

/** A pod made by an older daemon has none. */
async function ensureLease({ stores }: Cri, id: string): Promise<void> {
  try {
    await stores.leases.create(scopeOf(), { id });
  } catch (error) {
    if (!isError(error, "AlreadyExists")) throw within(`failed to ensure lease ${id} for sandbox`, error);
  }
}

async function mountImage(
  cri: Cri,
  mount: Mount,
  snapshotter: string,
  sandbox: { readonly id: string; readonly pid: number },
  scope: Scope,
): Promise<string> {
  const name = mount.image?.image ?? "";
  if (mount.hostPath !== "")
    throw new BunkerdError("Unknown", `hostpath must be empty while mount image: ${name}`);
  if (!mount.readonly) throw new BunkerdError("Unknown", `readonly must be true while mount image: ${name}`);
  if (name === "") throw new BunkerdError("Unknown", "image not specified in: ");
  let image: LocalImage;
  try {
    image = await cri.images.resolve(scope, name);
  } catch (error) {
    throw within(`failed to resolve image ${quote(name)}`, error);
  }
  const digest = image.target.digest;
  const target = join(imageVolumesPath(cri.folders, sandbox.id), digest.slice(digest.indexOf(":") + 1));
  // A second mount of the same upper folder fails, and what is done about that would take away the first.
  await cri.imageMounts.hold([target], async () => {
    if (mountPointsBelow(target).includes(target)) return;
    const shown = { labels: mappingOf(mount), users: `/proc/${sandbox.pid}/ns/user` };
    await mountSnapshot(snapshotterOf(cri.stores, snapshotter), scope, image, target, shown);
  });
  return mount.imageSubPath === "" ? target : subPath(target, mount.imageSubPath);
}

function mappingOf({ uidMappings: [uid], gidMappings: [gid] }: Mount): Labels {
  if (uid === undefined || gid === undefined) return {};
  return {
    [LABEL_UID_MAPPING]: `0:${uid.hostId}:${uid.length}`,
    [LABEL_GID_MAPPING]: `0:${gid.hostId}:${uid.length}`,
  };
}

async function mountSnapshot(
  snapshots: SnapshotStore,
  scope: Scope,
  image: LocalImage,
  target: string,
  { labels, users }: { readonly labels: Labels; readonly users: string },
): Promise<void> {
  let mounts: readonly SnapshotMount[];
  try {
    mounts = await snapshots.prepare(scope, target, image.chainId, labels);
  } catch (error) {
    if (!isError(error, "AlreadyExists"))
      throw within(`failed to prepare for image volume ${quote(image.references[0] ?? "")}`, error);
    mounts = await snapshots.mounts(scope, target);
  }
  try {
    mkdirSync(target, { recursive: true, mode: 0o755 });
    for (const mount of mounts) mountWithIds(volatile(mount), target, users);
  } catch (cause) {
    unmountBelow(target);
    await snapshots.remove(scope, target);
    throw new BunkerdError(
      "Unknown",
      `failed to mount image volume component ${quote(target)}: ${messageOf(cause)}`,
      { cause },
    );
  }
}

/** Nothing in it is kept, so that nothing needs to be synced when it is unmounted. */
function volatile(mount: SnapshotMount): SnapshotMount {
  const known = mount.options.some((option) => option === "volatile" || option === "fsync=volatile");
  if (mount.type !== "overlay" || known || !mount.options.some((option) => option.startsWith("upperdir=")))
    return mount;
  return { ...mount, options: [...mount.options, "volatile"] };
}

/** @throws Unknown if it is no folder of the image */
function subPath(target: string, path: string): string {
  const failure = `failed to ensure image subpath ${quote(path)} in ${quote(target)}`;
  let found: string;
  try {
    found = pathWithinRoot(target, path);
  } catch (error) {
    throw within(failure, error);
  }
  const stats = statSync(found, { throwIfNoEntry: false });
  if (stats === undefined)
    throw new BunkerdError("Unknown", `${failure}: openat ${path}: no such file or directory`);
  if (stats.isDirectory()) return found;
  const rule = `only directory subpath is supported, subpath: ${quote(path)}, mountpoint: ${quote(target)} `;
  throw new BunkerdError("Unknown", `${failure}: ${rule}`);
}

/** Takes away what {@link mountImages} made for a pod; twice is no error. @throws Unknown */
export async function unmountImageVolumes(cri: Cri, sandboxId: string): Promise<void> {
  const base = imageVolumesPath(cri.folders, sandboxId);
  if (!existsSync(base)) return;
  for (const name of readdirSync(base)) {
    const target = join(base, name);
    unmountBelow(target);
    for (const snapshots of cri.stores.snapshots.values())
      await ignoringNotFound(() => snapshots.remove(scopeOf(), target));
    rmdirSync(target);
  }
  rmdirSync(base);
}
