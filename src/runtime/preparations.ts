import type { Any } from "@bufbuild/protobuf/wkt";
import type { Logger } from "../lib/log.ts";
import { messageOf, within } from "../model/errors.ts";
import type { Scope } from "../model/scope.ts";
import type { NewTask, PreparedTask } from "../model/tasks.ts";
import { type Bundle, createBundle, deleteBundle, rewriteSpec } from "./bundle.ts";
import { isRuncShim, resolveRuntime } from "./runtime-path.ts";
import type { Shim } from "./shim.ts";
import type { Shims } from "./shims.ts";
import { SPEC_TYPE } from "./spec.ts";

interface Begun {
  readonly runtime: string;
  readonly options: Any | undefined;
  readonly started: Promise<{ readonly bundle: Bundle; readonly shim: Shim }>;
}

/**
 * Shims that run before their container's spec is finished. runc's shim reads nothing of the spec at its start but the annotations that tell
 * which shim the container belongs to, so that its two processes start while the root file system is still being prepared.
 */
export class Preparations {
  readonly #shims: Shims;
  readonly #logger: Logger;
  /** By `<namespace>/<id>`. */
  readonly #begun = new Map<string, Begun>();

  constructor(shims: Shims, logger: Logger) {
    this.#shims = shims;
    this.#logger = logger;
  }

  has(namespace: string, id: string): boolean {
    return this.#begun.has(`${namespace}/${id}`);
  }

  /** Undefined where there is a shim already, and for every other runtime: its shim may read the whole spec. */
  begin(scope: Scope, task: NewTask): PreparedTask | undefined {
    const { containerId: id, runtime, options } = task;
    const key = `${scope.namespace}/${id}`;
    const known = this.has(scope.namespace, id) || this.#shims.get(scope.namespace, id) !== undefined;
    if (known || !isOfRunc(runtime)) return undefined;
    const begun: Begun = { runtime, options, started: this.#start(scope, task) };
    // Told by whoever takes it.
    begun.started.catch(() => undefined);
    this.#begun.set(key, begun);
    return {
      discard: async () => {
        if (this.#begun.get(key) !== begun) return;
        this.#begun.delete(key);
        await this.#discard(begun);
      },
    };
  }

  /** The bundle with `spec` and its shim, if they were begun for this runtime. @throws what starting the shim threw */
  async take(
    namespace: string,
    id: string,
    wanted: { readonly runtime: string; readonly options: Any | undefined; readonly spec: Any },
  ): Promise<{ readonly bundle: Bundle; readonly shim: Shim } | undefined> {
    const key = `${namespace}/${id}`;
    const begun = this.#begun.get(key);
    if (begun === undefined) return undefined;
    this.#begun.delete(key);
    if (begun.runtime !== wanted.runtime || !areEqual(begun.options, wanted.options)) {
      await this.#discard(begun);
      return undefined;
    }
    const { bundle, shim } = await begun.started;
    try {
      rewriteSpec(bundle, wanted.spec);
    } catch (error) {
      await this.#shims.discard(shim);
      throw error;
    }
    return { bundle, shim };
  }

  async #start(scope: Scope, task: NewTask): Promise<{ bundle: Bundle; shim: Shim }> {
    const { containerId: id, runtime, options, annotations } = task;
    const value = Buffer.from(JSON.stringify({ ociVersion: "1.0.0", annotations }));
    const spec = { $typeName: "google.protobuf.Any" as const, typeUrl: SPEC_TYPE, value };
    const bundle = await createBundle(this.#shims.folders, scope.namespace, id, spec);
    try {
      const alone = { sandboxId: "", address: "", version: 0 };
      return { bundle, shim: await this.#shims.start(scope, bundle, { runtime, options, ...alone }) };
    } catch (error) {
      await deleteBundle(bundle);
      throw within("failed to start shim", error);
    }
  }

  async #discard({ started }: Begun): Promise<void> {
    let shim: Shim;
    try {
      ({ shim } = await started);
    } catch (error) {
      this.#logger.debug("a shim that is not needed any more did not start", { error: messageOf(error) });
      return;
    }
    await this.#shims.discard(shim);
  }
}

function areEqual(one: Any | undefined, other: Any | undefined): boolean {
  const empty = new Uint8Array();
  return one?.typeUrl === other?.typeUrl && Buffer.compare(one?.value ?? empty, other?.value ?? empty) === 0;
}

function isOfRunc(runtime: string): boolean {
  try {
    return isRuncShim(resolveRuntime(runtime));
  } catch {
    // Whoever creates the task is told.
    return false;
  }
}
