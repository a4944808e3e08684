/** The files of a pod that its containers see (containerd `internal/cri/server/podsandbox/sandbox_run_linux.go`, setupSandboxFiles). */
import { chmodSync, copyFileSync, existsSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { hostname } from "node:os";
import { type DNSConfig, NamespaceMode, type PodSandboxConfig } from "#gen/runtime/v1/api_pb.ts";
import { MountFlag, mount, UnmountFlag, unmount } from "../../linux/mount.ts";
import { unmountBelow } from "../../linux/mountinfo.ts";
import { BunkerdError, messageOf, quote } from "../../model/errors.ts";
import type { SandboxPaths } from "../paths.ts";
import { systemError } from "../system-errors.ts";

const SHM_BYTES = 64 << 20;
const FOLDER_MODE = 0o755;
const FILE_MODE = 0o644;

export function makeSandboxFolders({ root, state }: SandboxPaths): void {
  for (const path of [root, state]) mkdirSync(path, { recursive: true, mode: FOLDER_MODE });
}

/** Writes hostname, hosts and resolv.conf, and mounts the pod's /dev/shm. @throws Unknown */
export function setUpSandboxFiles(paths: SandboxPaths, config: PodSandboxConfig): void {
  step(`failed to write hostname to ${quote(paths.hostname)}`, () =>
    writeFileSync(paths.hostname, `${config.hostname || hostname()}\n`, { mode: FILE_MODE }),
  );
  step(`failed to generate sandbox hosts file ${quote(paths.hosts)}`, () => copy("/etc/hosts", paths.hosts));
  const { dnsConfig } = config;
  if (dnsConfig === undefined) {
    step(`failed to copy host's resolv.conf to ${quote(paths.resolvConf)}`, () =>
      copy("/etc/resolv.conf", paths.resolvConf),
    );
  } else {
    step(`failed to write resolv content to ${quote(paths.resolvConf)}`, () =>
      writeFileSync(paths.resolvConf, resolvConf(dnsConfig), { mode: FILE_MODE }),
    );
  }
  if (!usesHostIpc(config)) step("failed to mount sandbox shm", () => mountShm(paths.shm));
  else if (!existsSync("/dev/shm")) {
    throw new BunkerdError(
      "Unknown",
      'host "/dev/shm" is not available for host ipc: no such file or directory',
    );
  }
}

export function usesHostIpc(config: PodSandboxConfig): boolean {
  return config.linux?.securityContext?.namespaceOptions?.ipc === NamespaceMode.NODE;
}

function copy(from: string, to: string): void {
  copyFileSync(from, to);
  chmodSync(to, FILE_MODE);
}

function mountShm(path: string): void {
  mkdirSync(path, { recursive: true, mode: 0o700 });
  const flags = MountFlag.noExec | MountFlag.noSuid | MountFlag.noDev;
  mount({ source: "shm", target: path, type: "tmpfs", flags, data: `mode=1777,size=${SHM_BYTES}` });
}

/** resolv.conf(5). */
export function resolvConf({ servers, searches, options }: DNSConfig): string {
  return [
    ...(searches.length > 0 ? [`search ${searches.join(" ")}\n`] : []),
    ...servers.map((server) => `nameserver ${server}\n`),
    ...(options.length > 0 ? [`options ${options.join(" ")}\n`] : []),
  ].join("");
}

/** Unmounts /dev/shm; that it is not mounted is no error. @throws Unknown */
export function unmountShm(paths: SandboxPaths): void {
  try {
    unmount(paths.shm, UnmountFlag.detach | UnmountFlag.noFollow);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== "EINVAL" && code !== "ENOENT") {
      throw new BunkerdError("Unknown", `failed to unmount ${quote(paths.shm)}: ${messageOf(error)}`);
    }
  }
}

/** Removes a folder with what is in it, after what is mounted in it. @throws Unknown naming it as `what` */
export function removeFolder(what: string, path: string): void {
  step(`failed to remove ${what} ${quote(path)}`, () => {
    unmountBelow(path);
    rmSync(path, { recursive: true, force: true });
  });
}

function step(failure: string, run: () => void): void {
  try {
    run();
  } catch (cause) {
    throw systemError(cause, `${failure}: `);
  }
}
