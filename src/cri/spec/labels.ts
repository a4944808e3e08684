import { type Labels, validateLabel } from "../../model/labels.ts";

/** Labels and extensions of CRI's containers in containerd's store (containerd `internal/cri/labels`). */
export const CRI_LABEL_PREFIX = "io.cri-containerd";
export const LABEL_KIND = `${CRI_LABEL_PREFIX}.kind`;
export const CONTAINER_EXTENSION = `${CRI_LABEL_PREFIX}.container.metadata`;
export const SANDBOX_EXTENSION = `${CRI_LABEL_PREFIX}.sandbox.metadata`;

const RESERVED: readonly string[] = ["containerd.io/", CRI_LABEL_PREFIX];

/**
 * The labels of a container or a sandbox: the image's, then the request's, then its kind. An image, which may be a stranger's, sets
 * none that containerd itself understands; what it says too long is dropped.
 */
export function criLabels(asked: Labels, ofImage: Labels, kind: "sandbox" | "container"): Labels {
  const kept = Object.entries(ofImage).filter(
    ([key, value]) => !RESERVED.some((prefix) => key.startsWith(prefix)) && isShort(key, value),
  );
  return { ...Object.fromEntries(kept), ...asked, [LABEL_KIND]: kind };
}

function isShort(key: string, value: string): boolean {
  try {
    validateLabel(key, value);
    return true;
  } catch {
    return false;
  }
}
