import type { CriConfig } from "../../config/config.ts";
import type { Clock } from "../../lib/clock.ts";
import type { Logger } from "../../lib/log.ts";
import type { ContentStore } from "../../model/content.ts";
import type { ImageStore } from "../../model/images.ts";
import type { LocalTransfers } from "../../transfer/local.ts";
import type { LocalImages } from "./local-images.ts";
import type { SnapshotUsages } from "./snapshot-usages.ts";

/** What the functions of CRI's images work on. */
export interface ImagesContext {
  readonly config: CriConfig;
  readonly images: ImageStore;
  readonly content: ContentStore;
  readonly local: LocalImages;
  readonly transfers: Pick<LocalTransfers, "pullImage" | "unpackImage">;
  readonly usages: SnapshotUsages;
  /** Where each snapshotter keeps its files, by its name. */
  readonly snapshotterRoots: ReadonlyMap<string, string>;
  readonly clock: Clock;
  readonly logger: Logger;
}
