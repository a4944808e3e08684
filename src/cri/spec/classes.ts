import { BunkerdError, quote } from "../../model/errors.ts";
import type { SpecSettings } from "./settings.ts";

/*
 * Classes of block I/O and of Intel RDT that annotations name. Neither is configured here, as in a containerd without
 * `blockio_config_file` and `rdt_config_file`: naming one is refused, or ignored if the configuration says so.
 */

interface Naming {
  /** What stands before the container's name in an annotation of the container. */
  readonly containerKey: string;
  readonly podKey: string;
  readonly podContainerPrefix: string;
}

const BLOCK_IO: Naming = {
  containerKey: "io.kubernetes.cri.blockio-class",
  podKey: "blockio.resources.beta.kubernetes.io/pod",
  podContainerPrefix: "blockio.resources.beta.kubernetes.io/container.",
};

const RDT: Naming = {
  containerKey: "io.kubernetes.cri.rdt-class",
  podKey: "rdt.resources.beta.kubernetes.io/pod",
  podContainerPrefix: "rdt.resources.beta.kubernetes.io/container.",
};

type Annotations = Readonly<Record<string, string>>;

/** @throws Unknown if a class is named and that is not to be ignored */
export function assertNoClasses(
  containerName: string,
  container: Annotations,
  pod: Annotations,
  { containerd }: Pick<SpecSettings, "containerd">,
): void {
  const blockIo = classOf(BLOCK_IO, containerName, container, pod);
  if (blockIo !== undefined && blockIo !== "" && !containerd.ignore_blockio_not_enabled_errors) {
    const reason = `blockio disabled, refusing to set blockio class of container ${quote(containerName)} to ${quote(blockIo)}`;
    throw new BunkerdError("Unknown", `failed to set blockio class: ${reason}`);
  }
  const rdt = classOf(RDT, containerName, container, pod);
  if (rdt !== undefined && !containerd.ignore_rdt_not_enabled_errors) {
    const reason = `RDT not initialized, class ${quote(rdt)} not available`;
    throw new BunkerdError("Unknown", `failed to set RDT class: ${reason}`);
  }
}

function classOf(
  { containerKey, podKey, podContainerPrefix }: Naming,
  containerName: string,
  container: Annotations,
  pod: Annotations,
): string | undefined {
  return container[containerKey] ?? pod[`${podContainerPrefix}${containerName}`] ?? pod[podKey];
}
