/** A pod's range of users, the same for groups: CRI's `IDMapping`. */
export interface UserNamespace {
  readonly hostId: number;
  readonly containerId: number;
  readonly length: number;
}

/** Users of one pod: every 16-bit id. */
const LENGTH = 65_536;
/** The first range that is no machine user's, and how many there are: `pkg/kubelet/userns`. */
const RANGES = 32_767;

/** The first range that no other pod of this machine has. */
export function freeUserNamespace(taken: Iterable<UserNamespace>): UserNamespace {
  const used = new Set([...taken].map(({ hostId }) => Math.floor(hostId / LENGTH)));
  for (let range = 1; range <= RANGES; range++) {
    if (!used.has(range)) return { hostId: range * LENGTH, containerId: 0, length: LENGTH };
  }
  throw new Error("no free range of users for another user namespace");
}
