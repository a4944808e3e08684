import type { Clock } from "../lib/clock.ts";
import { formatRfc3339 } from "../lib/rfc3339.ts";
import { isError } from "../model/errors.ts";
import type { LeaseStore } from "../model/leases.ts";
import type { Scope } from "../model/scope.ts";

/** How long what a transfer has gathered is kept if the daemon does not live to its end. */
const EXPIRES_AFTER_SECONDS = 24n * 3600n;
const LABEL_EXPIRE = "containerd.io/gc.expire";
const SECOND = 1_000_000_000n;

/** Runs `work` under the caller's lease, or under one that ends with it (containerd `core/transfer/local` withLease). */
export async function withLease<T>(
  { leases, clock }: { readonly leases: LeaseStore; readonly clock: Clock },
  scope: Scope,
  work: (scope: Scope) => Promise<T>,
): Promise<T> {
  const { namespace, signal } = scope;
  if (scope.lease !== undefined) return await work(scope);
  const expiresAt = formatRfc3339((clock.now() / SECOND + EXPIRES_AFTER_SECONDS) * SECOND);
  const { id } = await leases.create({ namespace }, { labels: { [LABEL_EXPIRE]: expiresAt } });
  try {
    return await work({ namespace, lease: id, signal });
  } finally {
    await leases.delete({ namespace }, id).catch((error: unknown) => {
      if (!isError(error, "NotFound")) throw error;
    });
  }
}
