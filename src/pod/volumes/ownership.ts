/** fsGroup: `pkg/volume/volume_linux.go`, `SetVolumeOwnership`. */
import { chmodSync, lchownSync, lstatSync } from "node:fs";

/**
 * Gives an emptyDir to the group: what is made in it later belongs to the group too. Only the folder itself, which begins empty: what
 * containers have put there may be turned into links to anywhere meanwhile.
 */
export function setOwnership(path: string, gid: number): void {
  lchownSync(path, -1, gid);
  chmodSync(path, (lstatSync(path).mode & 0o7777) | 0o2770);
}
