import { create } from "@bufbuild/protobuf";
import { type FilesystemUsage, FilesystemUsageSchema } from "#gen/runtime/v1/api_pb.ts";
import type { Scope } from "../../model/scope.ts";
import type { ImagesContext } from "./context.ts";
import type { TimedUsage } from "./snapshot-usages.ts";

/** What images and containers take, a snapshotter each; the default one first, as the kubelet reads no other (`imagefs_info.go`). */
export async function imageFilesystems(context: ImagesContext, scope: Scope): Promise<FilesystemUsage[]> {
  const { config, usages, snapshotterRoots, clock } = context;
  const byDefault = config.images.snapshotter;
  const all = await usages.all(scope);
  const others = [...all.keys()].filter((name) => name !== byDefault && (all.get(name)?.size ?? 0) > 0);
  return [byDefault, ...others].map((name) => {
    const sum = total([...(all.get(name)?.values() ?? [])]);
    return create(FilesystemUsageSchema, {
      timestamp: sum.timestamp ?? clock.now(),
      fsId: { mountpoint: snapshotterRoots.get(name) ?? "" },
      usedBytes: { value: sum.size },
      inodesUsed: { value: sum.inodes },
    });
  });
}

/** As old as its oldest part. */
function total(usages: readonly TimedUsage[]) {
  let timestamp: bigint | undefined;
  let size = 0n;
  let inodes = 0n;
  for (const usage of usages) {
    if (timestamp === undefined || usage.timestamp < timestamp) timestamp = usage.timestamp;
    size += usage.size;
    inodes += usage.inodes;
  }
  return { timestamp, size, inodes };
}
