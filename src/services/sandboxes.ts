import { create } from "@bufbuild/protobuf";
import {
  SandboxCreateSchema,
  SandboxExitSchema,
  SandboxStartSchema,
} from "#gen/containerd/events/sandbox_pb.ts";
import { Controller, Store } from "#gen/containerd/services/sandbox/v1/sandbox_pb.ts";
import { SandboxSchema } from "#gen/containerd/types/sandbox_pb.ts";
import { BunkerdError, quote, within } from "../model/errors.ts";
import type { EventPublisher } from "../model/events.ts";
import type { SandboxController, SandboxStore } from "../model/sandboxes.ts";
import type { ServiceBinding } from "../transport/registry.ts";
import { bind } from "../transport/registry.ts";
import { scopeOf } from "./scope.ts";

/** containerd.services.sandbox.v1.Store (containerd `plugins/services/sandbox/store_service.go`). */
export function sandboxStoreService(dependencies: {
  readonly sandboxes: SandboxStore;
}): ServiceBinding<typeof Store> {
  const { sandboxes } = dependencies;
  return bind(Store, {
    async create(request, context) {
      const sandbox = request.sandbox ?? create(SandboxSchema);
      return { sandbox: await sandboxes.create(scopeOf(context), sandbox) };
    },
    async update(request, context) {
      const sandbox = request.sandbox ?? create(SandboxSchema);
      return { sandbox: await sandboxes.update(scopeOf(context), sandbox, request.fields) };
    },
    async delete({ sandboxId }, context) {
      await sandboxes.delete(scopeOf(context), sandboxId);
      return {};
    },
    async list({ filters }, context) {
      return { list: await sandboxes.list(scopeOf(context), filters) };
    },
    async get({ sandboxId }, context) {
      return { sandbox: await sandboxes.get(scopeOf(context), sandboxId) };
    },
  });
}

export interface ControllerDependencies {
  /** By the controller's name; undefined for one that there is not. */
  readonly controller: (sandboxer: string) => Promise<SandboxController | undefined>;
  readonly publisher: EventPublisher;
}

/** containerd.services.sandbox.v1.Controller (containerd `plugins/services/sandbox/controller_service.go`). */
export function sandboxControllerService(
  dependencies: ControllerDependencies,
): ServiceBinding<typeof Controller> {
  const { publisher } = dependencies;
  const of = (sandboxer: string): Promise<SandboxController> => controllerOf(dependencies, sandboxer);
  return bind(Controller, {
    async create({ sandboxId, sandboxer, sandbox, rootfs, options, netnsPath, annotations }, context) {
      const scope = scopeOf(context);
      const record = sandbox ?? create(SandboxSchema, { sandboxId });
      const controller = await of(sandboxer);
      await controller.create(scope, { sandbox: record, rootfs, options, netnsPath, annotations });
      const event = create(SandboxCreateSchema, { sandboxId });
      publisher.publish(scope.namespace, "/sandboxes/create", SandboxCreateSchema, event);
      return { sandboxId };
    },
    async start({ sandboxId, sandboxer }, context) {
      const scope = scopeOf(context);
      const controller = await of(sandboxer).catch((error: unknown) => {
        throw within(`failed to get sandbox controller for ${quote(sandboxer)}`, error);
      });
      const started = await controller.start(scope, sandboxId).catch((error: unknown) => {
        throw within(`failed to start sandbox ${quote(sandboxId)}`, error);
      });
      const event = create(SandboxStartSchema, { sandboxId });
      publisher.publish(scope.namespace, "/sandboxes/start", SandboxStartSchema, event);
      return started;
    },
    async platform({ sandboxId, sandboxer }, context) {
      return { platform: await (await of(sandboxer)).platform(scopeOf(context), sandboxId) };
    },
    async stop({ sandboxId, sandboxer, timeoutSecs }, context) {
      await (await of(sandboxer)).stop(scopeOf(context), sandboxId, timeoutSecs);
      return {};
    },
    async wait({ sandboxId, sandboxer }, context) {
      const scope = scopeOf(context);
      const { exitStatus, exitedAt } = await (await of(sandboxer)).wait(scope, sandboxId);
      const exit = { exitStatus, ...(exitedAt === undefined ? {} : { exitedAt }) };
      const event = create(SandboxExitSchema, { sandboxId, ...exit });
      publisher.publish(scope.namespace, "/sandboxes/exit", SandboxExitSchema, event);
      return exit;
    },
    async status({ sandboxId, sandboxer, verbose }, context) {
      return (await of(sandboxer)).status(scopeOf(context), sandboxId, verbose);
    },
    async shutdown({ sandboxId, sandboxer }, context) {
      await (await of(sandboxer)).shutdown(scopeOf(context), sandboxId);
      return {};
    },
    async metrics({ sandboxId, sandboxer }, context) {
      return { metrics: await (await of(sandboxer)).metrics(scopeOf(context), sandboxId) };
    },
    async update({ sandboxId, sandboxer, sandbox, fields }, context) {
      const controller = await of(sandboxer);
      if (sandbox === undefined) throw new BunkerdError("InvalidArgument", "sandbox can not be nil");
      await controller.update(scopeOf(context), sandboxId, sandbox, fields);
      return {};
    },
  });
}

async function controllerOf(
  { controller }: ControllerDependencies,
  sandboxer: string,
): Promise<SandboxController> {
  if (sandboxer === "") {
    throw new BunkerdError("InvalidArgument", "invalid argument: sandbox controller name can not be empty");
  }
  const found = await controller(sandboxer);
  if (found !== undefined) return found;
  throw new BunkerdError("NotFound", `not found: failed to get sandbox controller by ${sandboxer}`);
}
