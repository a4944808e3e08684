import { create } from "@bufbuild/protobuf";
import { TimestampSchema } from "@bufbuild/protobuf/wkt";
import {
  type ControllerStartResponse,
  ControllerStartResponseSchema,
  type ControllerStatusResponse,
  ControllerStatusResponseSchema,
} from "#gen/containerd/services/sandbox/v1/sandbox_pb.ts";
import { type Metric, MetricSchema } from "#gen/containerd/types/metrics_pb.ts";
import type { Clock } from "../lib/clock.ts";
import { BunkerdError, fail, isError, quote, within } from "../model/errors.ts";
import { type Platform, platformOf } from "../model/platforms.ts";
import type { NewSandbox, SandboxController } from "../model/sandboxes.ts";
import type { Scope } from "../model/scope.ts";
import type { Exit } from "../model/tasks.ts";
import { createBundle, deleteBundle } from "./bundle.ts";
import { isLost, type Shim } from "./shim.ts";
import type { Shims } from "./shims.ts";
import { timestamp } from "./timestamp.ts";

/** Sandboxes that are their shim's own business (containerd `plugins/sandbox/controller.go`): sandboxer `shim`. */
export class ShimSandboxes implements SandboxController {
  readonly #shims: Shims;
  readonly #clock: Clock;
  readonly #stopping = new AbortController();

  constructor({ shims, clock }: { readonly shims: Shims; readonly clock: Clock }) {
    this.#shims = shims;
    this.#clock = clock;
  }

  async create(scope: Scope, given: NewSandbox): Promise<void> {
    const { sandbox, rootfs, options, netnsPath, annotations } = given;
    const { sandboxId, spec, runtime } = sandbox;
    if (this.#find(scope, sandboxId) !== undefined) {
      throw fail("AlreadyExists", `sandbox ${sandboxId} already running`);
    }
    const bundle = await createBundle(this.#shims.folders, scope.namespace, sandboxId, spec);
    let shim: Shim;
    try {
      const started = { runtime: runtime?.name ?? "", options: runtime?.options };
      shim = await this.#shims.start(scope, bundle, { ...started, sandboxId: "", address: "", version: 0 });
    } catch (error) {
      await deleteBundle(bundle);
      throw within(`failed to start new shim for sandbox ${sandboxId}`, error);
    }
    const request = { sandboxId, bundlePath: bundle.path, rootfs: [...rootfs], netnsPath };
    const more = { annotations: { ...annotations }, ...(options === undefined ? {} : { options }) };
    try {
      await shim.callSandbox((service, call) => service.createSandbox({ ...request, ...more }, call), scope);
    } catch (error) {
      await this.#shims.discard(shim);
      throw within(`failed to create sandbox ${sandboxId}`, error);
    }
  }

  async start(scope: Scope, id: string): Promise<ControllerStartResponse> {
    const shim = this.#find(scope, id);
    if (shim === undefined) throw new BunkerdError("Unknown", `unable to find sandbox ${quote(id)}`);
    try {
      const started = await shim.callSandbox(
        (service, call) => service.startSandbox({ sandboxId: id }, call),
        scope,
      );
      const { pid, createdAt, spec } = started;
      return create(ControllerStartResponseSchema, {
        ...{ sandboxId: id, pid, address: shim.endpoint, version: shim.bootstrap.version },
        createdAt: createdAt ?? create(TimestampSchema),
        ...(spec === undefined ? {} : { spec }),
      });
    } catch (error) {
      await this.#shims.discard(shim);
      throw within(`failed to start sandbox ${id}`, error);
    }
  }

  async platform(scope: Scope, id: string): Promise<Platform> {
    const shim = this.#get(scope, id);
    const { platform } = await step("failed to get sandbox platform", () =>
      shim.callSandbox((service, call) => service.platform({ sandboxId: id }, call), scope),
    );
    return platformOf(platform?.os ?? "", platform?.architecture ?? "", platform?.variant ?? "");
  }

  async stop(scope: Scope, id: string, timeoutSecs: number): Promise<void> {
    const shim = this.#find(scope, id);
    if (shim === undefined) return;
    try {
      await shim.callSandbox(
        (service, call) => service.stopSandbox({ sandboxId: id, timeoutSecs }, call),
        scope,
      );
    } catch (error) {
      if (!isError(error, "NotFound") && !isError(error, "Unavailable"))
        throw within("failed to stop sandbox", error);
    }
  }

  async wait(scope: Scope, id: string): Promise<Exit> {
    const shim = this.#get(scope, id);
    try {
      const signals = [this.#stopping.signal, ...(scope.signal === undefined ? [] : [scope.signal])];
      const exit = await shim.callSandbox((service, call) => service.waitSandbox({ sandboxId: id }, call), {
        signal: AbortSignal.any(signals),
      });
      return { pid: 0, exitStatus: exit.exitStatus, exitedAt: exit.exitedAt };
    } catch (error) {
      this.#stopping.signal.throwIfAborted();
      if (isLost(error) && !shim.ended) return await shim.buried;
      throw within(`failed to wait sandbox ${id}`, error);
    }
  }

  /** Ends every wait, for the daemon stops: their callers ask the next one. */
  stopWaiting(): void {
    this.#stopping.abort(fail("Unavailable", "daemon is stopping"));
  }

  async status(scope: Scope, id: string, verbose: boolean): Promise<ControllerStatusResponse> {
    const shim = this.#find(scope, id);
    if (shim === undefined) {
      return create(ControllerStatusResponseSchema, {
        sandboxId: id,
        exitedAt: timestamp(this.#clock.now()),
      });
    }
    const found = await step(`failed to query sandbox ${id} status`, () =>
      shim.callSandbox((service, call) => service.sandboxStatus({ sandboxId: id, verbose }, call), scope),
    );
    const { pid, state, info, createdAt, exitedAt, extra } = found;
    return create(ControllerStatusResponseSchema, {
      ...{ sandboxId: id, pid, state, info, address: shim.endpoint, version: shim.bootstrap.version },
      ...(createdAt === undefined ? {} : { createdAt }),
      ...(exitedAt === undefined ? {} : { exitedAt }),
      ...(extra === undefined ? {} : { extra }),
    });
  }

  async shutdown(scope: Scope, id: string): Promise<void> {
    const shim = this.#get(scope, id);
    await this.#shims.dismiss(shim, async () => {
      await step("failed to shutdown sandbox", () =>
        shim.callSandbox((service, call) => service.shutdownSandbox({ sandboxId: id }, call), scope),
      );
    });
  }

  async metrics(scope: Scope, id: string): Promise<Metric> {
    const shim = this.#get(scope, id);
    const { metrics } = await shim.callSandbox(
      (service, call) => service.sandboxMetrics({ sandboxId: id }, call),
      scope,
    );
    return metrics ?? create(MetricSchema);
  }

  /** Shims are told of nothing, as in the reference. */
  async update(): Promise<void> {}

  #find({ namespace }: Scope, id: string): Shim | undefined {
    return this.#shims.get(namespace, id);
  }

  /** @throws NotFound */
  #get(scope: Scope, id: string): Shim {
    const shim = this.#find(scope, id);
    if (shim === undefined) throw fail("NotFound", `shim ${id}`);
    return shim;
  }
}

async function step<T>(failure: string, run: () => Promise<T>): Promise<T> {
  try {
    return await run();
  } catch (error) {
    throw within(failure, error);
  }
}
