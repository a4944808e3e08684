/** Network namespaces that belong to a user namespace: in them that namespace's root may do what root may. */
import { writeFileSync } from "node:fs";
import { bindNetworkNamespaceOf } from "./netns.ts";

/** One range of a user namespace's ids (user_namespaces(7)). */
export interface IdRange {
  /** Inside. */
  readonly containerId: number;
  readonly hostId: number;
  readonly length: number;
}

/**
 * Makes a network namespace owned by a new user namespace of these ids and binds it at a new file. A process with threads cannot make user
 * namespaces, so util-linux's `unshare` holds them open meanwhile. @throws ErrnoException, Error with what `unshare` says
 */
export async function createUserNetworkNamespace(path: string, uids: IdRange, gids: IdRange): Promise<void> {
  const holder = Bun.spawn(["unshare", "--user", "--net", "--", "cat"], {
    stdin: "pipe",
    stdout: "pipe",
    stderr: "pipe",
    detached: true,
  });
  try {
    holder.stdin.write("ready\n");
    await holder.stdin.flush();
    // What `cat` says was read behind the call of unshare(2).
    const { done } = await holder.stdout.getReader().read();
    if (done) throw new Error(`unshare failed: ${(await new Response(holder.stderr).text()).trim()}`);
    writeFileSync(`/proc/${holder.pid}/uid_map`, mapLine(uids));
    writeFileSync(`/proc/${holder.pid}/gid_map`, mapLine(gids));
    bindNetworkNamespaceOf(holder.pid, path);
  } finally {
    holder.kill("SIGKILL");
    await holder.exited;
  }
}

function mapLine({ containerId, hostId, length }: IdRange): string {
  return `${containerId} ${hostId} ${length}\n`;
}
