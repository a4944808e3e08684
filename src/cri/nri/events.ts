/** When plugins are told what; without a plugin nothing is made up to be told. */
import { realpathSync } from "node:fs";
import type { LinuxContainerResources, UpdatePodSandboxResourcesRequest } from "#gen/runtime/v1/api_pb.ts";
import type { ContainerOption } from "../../client/new-container.ts";
import { packSpec, unpackSpec } from "../../client/spec.ts";
import { lookUpMount } from "../../linux/mountinfo.ts";
import { messageOf } from "../../model/errors.ts";
import { adjustSpec } from "../../nri/adjust.ts";
import type { Nri } from "../../nri/nri.ts";
import type { Cri } from "../cri.ts";
import { step } from "../records.ts";
import type { Spec } from "../spec/spec.ts";
import type { Container } from "../store/container.ts";
import type { ContainerMetadata } from "../store/metadata.ts";
import type { Sandbox } from "../store/sandbox.ts";
import { containerMessage, fromCri, newContainerMessage, podMessage, toCri } from "./messages.ts";

/** Runs `work`, which makes a pod or a container, while no plugin comes in. */
export function holdingPlugins<T>({ nri }: Cri, work: () => Promise<T>): Promise<T> {
  return nri === undefined ? work() : nri.holdPlugins(work);
}

/** @throws what a plugin says: the pod is not wanted */
export async function tellPodRuns(cri: Cri, sandbox: Sandbox, signal: AbortSignal): Promise<void> {
  const nri = active(cri);
  if (nri === undefined) return;
  await step("NRI RunPodSandbox failed", async () =>
    nri.runPodSandbox(await podMessage(cri, sandbox), signal),
  );
}

/** New limits of the whole pod. @throws what a plugin says: they are not kept */
export async function askForPodUpdate(
  cri: Cri,
  sandbox: Sandbox,
  { overhead, resources }: Pick<UpdatePodSandboxResourcesRequest, "overhead" | "resources">,
  signal: AbortSignal,
): Promise<void> {
  const nri = active(cri);
  if (nri === undefined) return;
  await step("NRI sandbox update failed", async () =>
    nri.updatePodSandbox(
      await podMessage(cri, sandbox),
      overhead && fromCri(overhead),
      resources && fromCri(resources),
      signal,
    ),
  );
}

export async function tellPodUpdated(cri: Cri, sandbox: Sandbox): Promise<void> {
  await quietly(cri, "post-update notification", async (nri) =>
    nri.postUpdatePodSandbox(await podMessage(cri, sandbox)),
  );
}

/** Nothing keeps a pod from being stopped: what a plugin says is logged. */
export async function tellPodStopped(cri: Cri, sandbox: Sandbox): Promise<void> {
  await quietly(cri, "pod stop", async (nri) => nri.stopPodSandbox(await podMessage(cri, sandbox)));
}

export async function tellPodRemoved(cri: Cri, sandbox: Sandbox): Promise<void> {
  await quietly(cri, "pod removal", async (nri) => nri.removePodSandbox(await podMessage(cri, sandbox)));
  cri.nri?.forget(sandbox.id);
}

/** The last option of a new container: its finished spec is what plugins see and change. */
export function withPluginAdjustments(
  cri: Cri,
  sandbox: Sandbox,
  metadata: ContainerMetadata,
): ContainerOption {
  return async ({ scope }, record) => {
    const nri = active(cri);
    if (nri === undefined || record.spec === undefined) return;
    const adjust = await step("failed to get NRI adjustment for container", async () =>
      nri.createContainer(
        await podMessage(cri, sandbox),
        newContainerMessage(metadata, record),
        scope.signal,
      ),
    );
    if (adjust === undefined) return;
    const spec = unpackSpec(record.spec) as Spec;
    const { runtime } = cri.config;
    await step("failed to NRI-adjust container Spec", () =>
      adjustSpec(spec, adjust, {
        withoutHugepages: runtime.disable_hugetlb_controller,
        propagationOf,
        injectCdiDevices: async (names) => {
          const { injectDevices } = await import("../spec/cdi-devices.ts");
          injectDevices(spec, names, runtime.cdi_spec_dirs, (message) => cri.logger.warn(message));
        },
      }),
    );
    record.spec = packSpec(spec);
  };
}

function propagationOf(path: string): string {
  const tags = lookUpMount(realpathSync(path))?.tags ?? [];
  if (tags.some((tag) => tag.startsWith("shared:"))) return "shared";
  return tags.some((tag) => tag.startsWith("master:")) ? "slave" : "private";
}

export async function undoAdjustments(
  cri: Cri,
  sandbox: Sandbox,
  metadata: ContainerMetadata,
): Promise<void> {
  await quietly(cri, "creation undo", async (nri) =>
    nri.undoCreateContainer(await podMessage(cri, sandbox), newContainerMessage(metadata, undefined)),
  );
  cri.nri?.forget(metadata.id);
}

export async function tellContainerCreated(cri: Cri, sandbox: Sandbox, container: Container): Promise<void> {
  await quietly(cri, "post-create notification", async (nri) =>
    nri.postCreateContainer(await podMessage(cri, sandbox), await containerMessage(cri, container)),
  );
}

/** @throws what a plugin says: the container is not to start */
export async function tellContainerStarts(
  cri: Cri,
  sandbox: Sandbox,
  container: Container,
  signal: AbortSignal,
): Promise<void> {
  const nri = active(cri);
  if (nri === undefined) return;
  await step("NRI container start failed", async () =>
    nri.startContainer(await podMessage(cri, sandbox), await containerMessage(cri, container), signal),
  );
}

export async function tellContainerStarted(cri: Cri, sandbox: Sandbox, container: Container): Promise<void> {
  await quietly(cri, "post-start notification", async (nri) =>
    nri.postStartContainer(await podMessage(cri, sandbox), await containerMessage(cri, container)),
  );
}

/** To what a container is to be updated: what was asked for, unless a plugin has a say. @throws what a plugin says */
export async function askForUpdate(
  cri: Cri,
  sandbox: Sandbox,
  container: Container,
  asked: LinuxContainerResources | undefined,
  signal: AbortSignal,
): Promise<LinuxContainerResources | undefined> {
  const nri = active(cri);
  if (nri === undefined) return asked;
  const wanted = asked === undefined ? undefined : fromCri(asked);
  const own = await step("NRI container update failed", async () =>
    nri.updateContainer(
      await podMessage(cri, sandbox),
      await containerMessage(cri, container),
      wanted,
      signal,
    ),
  );
  return own === undefined ? asked : toCri(own);
}

export async function tellContainerUpdated(cri: Cri, sandbox: Sandbox, container: Container): Promise<void> {
  await quietly(cri, "post-update notification", async (nri) =>
    nri.postUpdateContainer(await podMessage(cri, sandbox), await containerMessage(cri, container)),
  );
}

/** It has ended, by itself or not. */
export async function tellContainerStopped(cri: Cri, container: Container): Promise<void> {
  await quietly(cri, "stop notification", async (nri) => {
    const sandbox = cri.sandboxes.find(container.metadata.sandboxId);
    if (sandbox === undefined) return;
    await nri.stopContainer(await podMessage(cri, sandbox), await containerMessage(cri, container));
  });
}

export async function tellContainerRemoved(cri: Cri, container: Container): Promise<void> {
  await quietly(cri, "removal notification", async (nri) => {
    const sandbox = cri.sandboxes.find(container.metadata.sandboxId);
    if (sandbox === undefined) return;
    await nri.removeContainer(await podMessage(cri, sandbox), await containerMessage(cri, container));
  });
  cri.nri?.forget(container.id);
}

function active({ nri }: Cri): Nri | undefined {
  return nri?.hasSay === true ? nri : undefined;
}

async function quietly(cri: Cri, what: string, tell: (nri: Nri) => Promise<void>): Promise<void> {
  const nri = active(cri);
  if (nri === undefined) return;
  try {
    await tell(nri);
  } catch (error) {
    cri.logger.error(`NRI ${what} failed`, { error: messageOf(error) });
  }
}
