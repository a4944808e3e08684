/** What the runtime's handler can do, asked only where a pod wants to know. */
import type { RuntimeHandlerFeatures } from "#gen/runtime/v1/api_pb.ts";
import type { CriClient } from "../client/cri.ts";
import type { PodSpec } from "./api/pod.ts";

type Asked = Pick<CriClient, "status">;

/** Undefined: an older runtime, or one that does not know the handler. */
async function featuresOf(cri: Asked, spec: PodSpec): Promise<RuntimeHandlerFeatures | undefined> {
  const { runtimeHandlers } = await cri.status();
  const handler = spec.runtimeClassName ?? "";
  return runtimeHandlers.find(({ name }) => name === handler)?.features;
}

export async function supportsRecursiveReadOnly(cri: Asked, spec: PodSpec): Promise<boolean> {
  const all = [...spec.containers, ...(spec.initContainers ?? []), ...(spec.ephemeralContainers ?? [])];
  const asked = all.some(({ volumeMounts = [] }) =>
    volumeMounts.some(({ recursiveReadOnly = "Disabled" }) => recursiveReadOnly !== "Disabled"),
  );
  return asked && ((await featuresOf(cri, spec))?.recursiveReadOnlyMounts ?? false);
}

/** Before a sandbox is made whose containers could not be: `GetOrCreateUserNamespaceMappings`. @throws Error */
export async function assertUserNamespaces(cri: Asked, spec: PodSpec): Promise<void> {
  if (spec.hostUsers !== false || (await featuresOf(cri, spec))?.userNamespaces === true) return;
  const { runtimeClassName } = spec;
  const who =
    runtimeClassName === undefined ? "runtime" : `RuntimeClass handler ${JSON.stringify(runtimeClassName)}`;
  throw new Error(`can't set \`spec.hostUsers: false\`, ${who} does not support user namespaces`);
}
