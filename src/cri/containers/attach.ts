import type { AttachRequest } from "#gen/runtime/v1/api_pb.ts";
import { BunkerdError, messageOf, quote } from "../../model/errors.ts";
import type { ProcessName } from "../../model/tasks.ts";
import { type Cri, scopeOf } from "../cri.ts";
import { step } from "../records.ts";
import type { AttachTarget, Session } from "../streaming/runtime.ts";
import { assertRuns } from "./exec.ts";

/** Where a client may attach. @throws NotFound, Unknown unless the container runs, InvalidArgument, ResourceExhausted */
export async function attachUrl(cri: Cri, request: AttachRequest): Promise<string> {
  const found = await step("failed to find container in store", () =>
    cri.containers.get(request.containerId),
  );
  assertRuns(found);
  return (await cri.streaming.get()).attachUrl(request);
}

/** Attaches a client. Source of the rules: `internal/cri/server/container_attach.go`. */
export async function attachForClient(
  cri: Cri,
  { containerId }: AttachTarget,
  session: Session,
): Promise<void> {
  const container = await step(`failed to find container ${quote(containerId)} in store`, () =>
    cri.containers.get(containerId),
  );
  assertRuns(container);
  const { io, id } = container;
  if (io === undefined) throw new BunkerdError("Unknown", `container ${quote(id)} has no stdio`);
  const name = { containerId: id, execId: "" };
  if (session.resize !== undefined) void followSizes(cri, name, session.resize);
  await io.attach({
    stdin: session.stdin,
    stdout: session.stdout,
    stderr: session.stderr,
    signal: session.gone,
    closeStdin: () => cri.tasks.closeStdin(scopeOf(), name),
  });
}

async function followSizes(
  cri: Cri,
  name: ProcessName,
  sizes: NonNullable<Session["resize"]>,
): Promise<void> {
  try {
    for await (const { width, height } of sizes)
      if (width > 0 && height > 0) await cri.tasks.resizePty(scopeOf(), name, width, height);
  } catch (error) {
    cri.logger.warn("resize terminal of a container", { id: name.containerId, error: messageOf(error) });
  }
}
