/**
 * Named places in the source where a test may make things go wrong. They cost one empty-map test when none is armed.
 *
 * Armed by a test with {@link armFailpoint}, or for a child process by the environment:
 * `BUNKERD_FAILPOINTS="bolt.beforeMeta=kill@3;bolt.beforeDataSync=error:ENOSPC"` kills the process with SIGKILL at the third
 * visit of the one and throws an error whose `code` is ENOSPC at every visit of the other.
 */
type FailpointAction = () => void;

const armed = new Map<string, FailpointAction>();

/** Runs what is armed under `name`; it may throw or end the process. */
export function failpoint(name: string): void {
  if (armed.size !== 0) armed.get(name)?.();
}

/** Arms `name`; the function returned disarms it. */
export function armFailpoint(name: string, action: FailpointAction): () => void {
  armed.set(name, action);
  return () => {
    if (armed.get(name) === action) armed.delete(name);
  };
}

/** An error shaped as Node's system errors are. */
export function systemError(code: string): Error {
  return Object.assign(new Error(`${code}: made by a failpoint`), { code });
}

function parseAction(text: string): FailpointAction {
  const [verb = "", visit] = text.split("@");
  let visitsLeft = visit === undefined ? 0 : Number(visit);
  const act: FailpointAction = verb.startsWith("error:")
    ? () => {
        throw systemError(verb.slice("error:".length));
      }
    : () => {
        process.kill(process.pid, "SIGKILL");
      };
  if (verb !== "kill" && !verb.startsWith("error:"))
    throw new Error(`failpoint action ${JSON.stringify(text)}: want kill or error:CODE`);
  return () => {
    if (visitsLeft > 1) visitsLeft--;
    else act();
  };
}

for (const clause of (process.env["BUNKERD_FAILPOINTS"] ?? "").split(";").filter((part) => part !== "")) {
  const at = clause.indexOf("=");
  armed.set(clause.slice(0, at), parseAction(clause.slice(at + 1)));
}
