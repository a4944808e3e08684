import type { Any } from "@bufbuild/protobuf/wkt";
import type { Container } from "#gen/containerd/services/containers/v1/containers_pb.ts";
import type { CreateTaskRequest } from "#gen/containerd/services/tasks/v1/tasks_pb.ts";
import { within } from "../model/errors.ts";
import type { Scope } from "../model/scope.ts";
import { type Bundle, createBundle, deleteBundle } from "./bundle.ts";
import { type CheckpointStores, type Restore, restoreFolder } from "./checkpoints.ts";
import type { Preparations } from "./preparations.ts";
import { checkRuntime } from "./runtime-info.ts";
import { isLost, type Shim } from "./shim.ts";
import type { Shims } from "./shims.ts";

export interface TaskCreation {
  readonly shims: Shims;
  readonly preparations: Preparations;
  readonly checkpoints: CheckpointStores | undefined;
}

interface TaskToCreate {
  readonly spec: Any;
  readonly request: CreateTaskRequest;
  readonly restore: Restore;
}

/**
 * Has a shim make a container's task, a shim that was prepared for it if there is one; the pid. What fails leaves no shim and no bundle.
 * @throws the runtime's words
 */
export async function createTask(
  parts: TaskCreation,
  scope: Scope,
  container: Container,
  task: TaskToCreate,
): Promise<number> {
  const { shims, preparations, checkpoints } = parts;
  const { spec, request, restore } = task;
  const id = container.id;
  const options = hasValue(request.options) ? request.options : container.runtime?.options;
  const runtime = request.runtimePath || (container.runtime?.name ?? "");
  await checkRuntime(runtime, spec, options, scope.signal);
  const { bundle, shim } =
    (await preparations.take(scope.namespace, id, { runtime, options, spec })) ??
    (await startShim(shims, scope, container, request, options));
  let checkpoint: string;
  try {
    checkpoint = await restoreFolder(checkpoints, scope, restore, bundle.path);
  } catch (error) {
    await shims.discard(shim);
    throw error;
  }
  const { rootfs, stdin, stdout, stderr, terminal } = request;
  const mounts = rootfs.map(({ type, source, target, options: mountOptions }) => ({
    ...{ type, source, target },
    options: mountOptions,
  }));
  const io = { stdin, stdout, stderr, terminal };
  try {
    const message = {
      id,
      bundle: bundle.path,
      rootfs: mounts,
      ...io,
      checkpoint,
      ...(options && { options }),
    };
    await shims.late.starting(shim, spec, message);
    const { pid } = await shim.call((task, call) => task.create(message, call), scope);
    shims.late.restore(shim, pid);
    if (restore.starts) await shim.call((task, call) => task.start({ id }, call), scope);
    return pid;
  } catch (error) {
    // A shim that died has been cleaned up after.
    if (isLost(error)) await shim.buried;
    else await shims.discard(shim);
    throw within("failed to create shim task", error);
  }
}

async function startShim(
  shims: Shims,
  scope: Scope,
  { id, spec, runtime: known, sandbox: sandboxId }: Container,
  { runtimePath, taskApiAddress: address, taskApiVersion: version }: CreateTaskRequest,
  options: Any | undefined,
): Promise<{ bundle: Bundle; shim: Shim }> {
  const runtime = runtimePath || (known?.name ?? "");
  const bundle = await createBundle(shims.folders, scope.namespace, id, spec);
  try {
    const shim = await shims.start(scope, bundle, { runtime, options, sandboxId, address, version });
    return { bundle, shim };
  } catch (error) {
    await deleteBundle(bundle);
    throw within("failed to start shim", error);
  }
}

function hasValue(options: Any | undefined): options is Any {
  return options !== undefined && options.value.length > 0;
}
