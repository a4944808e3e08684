import { ContainerState } from "#gen/runtime/v1/api_pb.ts";
import { type CriClient, criClient } from "../../client/cri.ts";
import { debugPod } from "../../pod/debug.ts";
import { findPod } from "../../pod/found.ts";
import { PodSession } from "../../pod/session.ts";
import { attachTo, joinStreams } from "./exec.ts";
import { type PodOptions, rootsOf } from "./options.ts";
import { printEvent } from "./run.ts";

export interface DebugOptions extends PodOptions {
  readonly image: string;
  readonly container?: string;
  readonly target?: string;
  readonly stdin?: boolean;
  readonly tty?: boolean;
  readonly quiet?: boolean;
}

/** How long a runtime may take to tell that a container has ended whose streams have. */
const END_MS = 2000;

/** Adds an ephemeral container and, with `-i`, joins it; the process's exit code is the container's then. */
export async function debug(name: string, command: readonly string[], options: DebugOptions): Promise<void> {
  const session = await PodSession.open({
    cri: criClient(options.runtimeEndpoint),
    roots: rootsOf(options),
    onEvent: options.quiet === true ? () => undefined : printEvent,
  });
  try {
    const found = await findPod(session.cri, rootsOf(options), options.namespace, name);
    const { stdin = false, tty = false, image, target } = options;
    const request = { image, target, name: options.container, command, stdin, tty };
    const container = await debugPod(session.parts, found, request);
    process.stdout.write(`${container.name}\n`);
    if (!stdin) return;
    await joinStreams(await attachTo(session.cri, container.id, options), options);
    process.exitCode = await exitCodeOf(session.cri, container.id);
  } finally {
    await session.close();
  }
}

/** Its streams have ended, and so has the container, or is about to; 0 of one that goes on without them. */
async function exitCodeOf(cri: CriClient, id: string): Promise<number> {
  for (const deadline = performance.now() + END_MS; ; await Bun.sleep(20)) {
    const { state, exitCode } = await cri.containerStatus(id);
    if (state === ContainerState.CONTAINER_EXITED) return exitCode;
    if (performance.now() > deadline) return 0;
  }
}
