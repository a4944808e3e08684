import { Tasks } from "#gen/containerd/services/tasks/v1/tasks_pb.ts";
import type { Exit, TaskStore } from "../model/tasks.ts";
import type { ServiceBinding } from "../transport/registry.ts";
import { bind } from "../transport/registry.ts";
import { scopeOf } from "./scope.ts";

/** containerd.services.tasks.v1.Tasks (containerd `plugins/services/tasks/service.go`). */
export function tasksService({ tasks }: { readonly tasks: TaskStore }): ServiceBinding<typeof Tasks> {
  return bind(Tasks, {
    async create(request, context) {
      const { containerId } = request;
      return { containerId, pid: await tasks.create(scopeOf(context), request) };
    },
    async start(request, context) {
      return { pid: await tasks.start(scopeOf(context), request) };
    },
    async delete({ containerId }, context) {
      return exitFields(await tasks.delete(scopeOf(context), containerId));
    },
    async deleteProcess(request, context) {
      return { id: request.execId, ...exitFields(await tasks.deleteProcess(scopeOf(context), request)) };
    },
    async get(request, context) {
      return { process: await tasks.get(scopeOf(context), request) };
    },
    async list(_request, context) {
      return { tasks: await tasks.list(scopeOf(context)) };
    },
    async kill(request, context) {
      await tasks.kill(scopeOf(context), request, request.signal, request.all);
      return {};
    },
    async exec(request, context) {
      await tasks.exec(scopeOf(context), request);
      return {};
    },
    async resizePty(request, context) {
      await tasks.resizePty(scopeOf(context), request, request.width, request.height);
      return {};
    },
    async closeIO(request, context) {
      const scope = scopeOf(context);
      if (request.stdin) await tasks.closeStdin(scope, request);
      // Without anything to close only what it names is looked up.
      else await tasks.get(scope, request);
      return {};
    },
    async pause({ containerId }, context) {
      await tasks.pause(scopeOf(context), containerId);
      return {};
    },
    async resume({ containerId }, context) {
      await tasks.resume(scopeOf(context), containerId);
      return {};
    },
    async listPids({ containerId }, context) {
      return { processes: await tasks.listPids(scopeOf(context), containerId) };
    },
    checkpoint: (request, context) => tasks.checkpoint(scopeOf(context), request),
    async update(request, context) {
      await tasks.update(scopeOf(context), request);
      return {};
    },
    async metrics({ filters }, context) {
      return { metrics: await tasks.metrics(scopeOf(context), filters) };
    },
    async wait(request, context) {
      const { exitStatus, exitedAt } = await tasks.wait(scopeOf(context), request);
      return { exitStatus, ...(exitedAt && { exitedAt }) };
    },
  });
}

function exitFields({ pid, exitStatus, exitedAt }: Exit) {
  return { pid, exitStatus, ...(exitedAt && { exitedAt }) };
}
