import { type CriClient, criClient } from "../../client/cri.ts";
import { runRemoteCommand, type TerminalSize } from "../../client/cri-streams.ts";
import { fail, quote } from "../../model/errors.ts";
import { type FoundPod, findPod } from "../../pod/found.ts";
import { latest, type ObservedContainer } from "../../pod/status.ts";
import { type PodOptions, rootsOf } from "./options.ts";

export interface ExecOptions extends PodOptions {
  readonly container?: string;
  readonly stdin?: boolean;
  readonly tty?: boolean;
}

/** Runs a command in a container; the process's exit code is the command's. */
export async function execInPod(
  name: string,
  command: readonly string[],
  options: ExecOptions,
): Promise<void> {
  await inContainer(name, options, (cri, { id }) =>
    cri.exec(id, command, {
      stdin: options.stdin === true,
      stdout: true,
      stderr: options.tty !== true,
      tty: options.tty === true,
    }),
  );
}

/** Joins a container's own streams, until they end. */
export async function attachToPod(name: string, options: ExecOptions): Promise<void> {
  await inContainer(name, options, (cri, { id }) => attachTo(cri, id, options));
}

export function attachTo(
  cri: CriClient,
  id: string,
  { stdin, tty }: Pick<ExecOptions, "stdin" | "tty">,
): Promise<string> {
  return cri.attach(id, { stdin: stdin === true, stdout: true, stderr: tty !== true, tty: tty === true });
}

async function inContainer(
  name: string,
  options: ExecOptions,
  urlOf: (cri: CriClient, container: ObservedContainer) => Promise<string>,
): Promise<void> {
  const cri = criClient(options.runtimeEndpoint);
  try {
    const found = await findPod(cri, rootsOf(options), options.namespace, name);
    const container = runningContainer(found, options.container);
    process.exitCode = await joinStreams(await urlOf(cri, container), options);
  } finally {
    cri.close();
  }
}

/** Kubectl's: which container is meant where none is named. */
const DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container";

/** The named container, else the one that the pod's annotation names, else its first. @throws NotFound, FailedPrecondition if it does not run */
function runningContainer({ pod, observed }: FoundPod, name: string | undefined): ObservedContainer {
  const wanted = name ?? pod.metadata.annotations[DEFAULT_CONTAINER] ?? pod.spec.containers[0]?.name ?? "";
  const last = latest(observed, wanted);
  const place = `container ${quote(wanted)} in pod ${quote(pod.metadata.name)}`;
  const names = [...new Set(observed.containers.map((each) => each.name))].reverse();
  if (last === undefined) throw fail("NotFound", `${place} (it has ${names.join(", ") || "none yet"})`);
  if (last.state !== "running") throw fail("FailedPrecondition", `${place} is ${last.state}, not running`);
  return last;
}

/** Our own streams to those of the URL, the terminal raw meanwhile. */
export async function joinStreams(
  url: string,
  { stdin, tty }: Pick<ExecOptions, "stdin" | "tty">,
): Promise<number> {
  const raw = stdin === true && tty === true && process.stdin.isTTY;
  if (raw) process.stdin.setRawMode(true);
  try {
    return await runRemoteCommand(url, {
      onStdout: (bytes) => void process.stdout.write(bytes),
      onStderr: (bytes) => void process.stderr.write(bytes),
      stdin: stdin === true ? (process.stdin as AsyncIterable<Uint8Array>) : undefined,
      sizes: tty === true && process.stdout.isTTY ? terminalSizes() : undefined,
    });
  } finally {
    if (raw) process.stdin.setRawMode(false);
    // What is still to be read is nobody's: it must not keep the process.
    if (stdin === true) process.stdin.destroy();
  }
}

async function* terminalSizes(): AsyncGenerator<TerminalSize> {
  for (;;) {
    yield { columns: process.stdout.columns, rows: process.stdout.rows };
    await new Promise((resolve) => process.stdout.once("resize", resolve));
  }
}
