/** What `ctr events` prints of a daemon. */
import { ctr } from "./commands.ts";
import { until } from "./containers.ts";
import { containerdProgram, type Daemon } from "./daemons.ts";
import { linesOf, start } from "./processes.ts";

export interface WatchedEvents extends AsyncDisposable {
  /** A line for each event since it began, without those of {@link settled}. */
  readonly seen: readonly string[];
  /** Waits until all that has happened is seen. */
  settled(): Promise<void>;
}

const MARK = "ctr-events";

/** Follows the events of a daemon, in all namespaces, from now on. */
export async function watchEvents(daemon: Daemon): Promise<WatchedEvents> {
  const command = [await containerdProgram("2.1", "ctr"), "--address", daemon.socket, "events"];
  const watching = start(command, { stdout: "pipe", stderr: "inherit" });
  const seen: string[] = [];
  const marks = new Set<string>();
  void (async () => {
    for await (const line of linesOf(watching.stdout)) {
      const mark = new RegExp(`"(${MARK}-\\d+)"`).exec(line)?.[1];
      if (mark === undefined) seen.push(line);
      else marks.add(mark);
    }
  })();
  let count = 0;
  // ctr does not tell when it listens, and what is missed is not repeated: namespaces come and go until one is seen.
  const settled = async (): Promise<void> => {
    const name = `${MARK}-${++count}`;
    await until(`the event of namespace ${name}`, async () => {
      await ctr("2.1", daemon, "namespaces", "create", name);
      await ctr("2.1", daemon, "namespaces", "rm", name);
      return marks.has(name);
    });
  };
  const end = async (): Promise<void> => {
    watching.kill("SIGKILL");
    await watching.exited;
  };
  try {
    await settled();
  } catch (error) {
    await end();
    throw error;
  }
  return { seen, settled, [Symbol.asyncDispose]: end };
}
