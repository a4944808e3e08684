import {
  type CallOptions,
  type Client,
  Code,
  ConnectError,
  createClient,
  type Transport,
} from "@connectrpc/connect";
import { Sandbox } from "#gen/containerd/runtime/sandbox/v1/sandbox_pb.ts";
import { Task as TaskV2 } from "#gen/containerd/task/v2/shim_pb.ts";
import { Task as TaskV3 } from "#gen/containerd/task/v3/shim_pb.ts";
import { BunkerdError } from "../model/errors.ts";
import type { Exit } from "../model/tasks.ts";
import { codeName } from "../transport/status.ts";
import type { Bootstrap } from "./bootstrap.ts";
import type { Bundle } from "./bundle.ts";
import type { ShimLog } from "./shim-log.ts";
import { isLostMessage, type ShimTransport, shimTransport } from "./shim-transport.ts";

/** The task service of either version: they differ in nothing but their names. */
export type TaskClient = Client<typeof TaskV3>;

export type SandboxClient = Client<typeof Sandbox>;

/** How long one call may take; without `timeoutMs` as long as the caller waits. */
export interface CallLimits {
  readonly signal?: AbortSignal | undefined;
  readonly timeoutMs?: number;
}

/** The connection to one task's shim, from its start or the daemon's to its end. */
export class Shim {
  readonly bundle: Bundle;
  readonly bootstrap: Bootstrap;
  /** Resolves when the connection has ended, whoever ended it. */
  readonly closed: Promise<void>;
  /** Taken over from an earlier daemon. */
  adopted = false;
  readonly #log: ShimLog;
  readonly #close: () => void;
  readonly #transport: Transport;
  readonly #options: CallOptions;
  readonly #buried = Promise.withResolvers<Exit>();
  #task: TaskClient;
  #version: number;
  #answered = false;
  #ended = false;

  /** Connects in the background: calls wait for it. @param log read until the end @throws Unimplemented for a protocol that is not spoken */
  constructor(bundle: Bundle, bootstrap: Bootstrap, log: ShimLog) {
    this.bundle = bundle;
    this.bootstrap = bootstrap;
    this.#log = log;
    this.#version = bootstrap.version;
    const transport = this.#connect();
    this.#options = { headers: { [transport.namespaceHeader]: bundle.namespace } };
    this.#transport = transport;
    this.#close = () => transport.close();
    this.#task = clientOf(transport, this.#version);
    this.closed = transport.closed.then(() => {
      void this.#log.close();
    });
    // Nobody may wait for it.
    this.#buried.promise.catch(() => undefined);
  }

  #connect(): ShimTransport {
    try {
      return shimTransport(this.bootstrap, this.bundle.id);
    } catch (error) {
      void this.#log.close();
      throw error;
    }
  }

  /** `<protocol>+<address>`, as the reference tells it. */
  get endpoint(): string {
    return `${this.bootstrap.protocol}+${this.bootstrap.address}`;
  }

  /** True once {@link close} was called: the end of the connection is no death. */
  get ended(): boolean {
    return this.#ended;
  }

  /** What the container came to, once a dead shim has been cleaned up after. */
  get buried(): Promise<Exit> {
    return this.#buried.promise;
  }

  bury(exit: Exit): void {
    this.#buried.resolve(exit);
  }

  /** One call. @throws what the shim answers, Unavailable if the connection is lost, DeadlineExceeded, Canceled */
  async call<T>(run: (task: TaskClient, options: CallOptions) => Promise<T>, limits: CallLimits): Promise<T> {
    const { signal, timeoutMs } = limits;
    const options: CallOptions = {
      ...this.#options,
      ...(signal === undefined ? {} : { signal }),
      ...(timeoutMs === undefined ? {} : { timeoutMs }),
    };
    try {
      const answer = await this.#run(run, options);
      this.#answered = true;
      return answer;
    } catch (error) {
      throw fromShim(error);
    }
  }

  /** The same of the sandbox service, which shims with sandboxes of their own have. @throws Unimplemented of another */
  async callSandbox<T>(
    run: (sandbox: SandboxClient, options: CallOptions) => Promise<T>,
    { signal }: CallLimits,
  ): Promise<T> {
    try {
      return await run(createClient(Sandbox, this.#transport), {
        ...this.#options,
        ...(signal === undefined ? {} : { signal }),
      });
    } catch (error) {
      throw fromShim(error);
    }
  }

  /** A shim that an older containerd started may be told to be of version 3 by its newer program, and is not. */
  async #run<T>(
    run: (task: TaskClient, options: CallOptions) => Promise<T>,
    options: CallOptions,
  ): Promise<T> {
    try {
      return await run(this.#task, options);
    } catch (error) {
      const unknown = error instanceof ConnectError && error.code === Code.Unimplemented;
      if (!unknown || this.#answered || this.#version < 3) throw error;
      this.#version = 2;
      this.#task = clientOf(this.#transport, 2);
      return await run(this.#task, options);
    }
  }

  /** Ends the connection; the shim lives on. */
  close(): void {
    this.#ended = true;
    void this.#log.close();
    this.#close();
  }
}

function clientOf(transport: Transport, version: number): TaskClient {
  return version < 3
    ? (createClient(TaskV2, transport) as unknown as TaskClient)
    : createClient(TaskV3, transport);
}

/** Words and code as they came. What is no status is a defect and stays as it is. */
function fromShim(error: unknown): unknown {
  return error instanceof ConnectError
    ? new BunkerdError(codeName(error.code), error.rawMessage, { cause: error })
    : error;
}

/** True if the call failed because the connection was lost or never made, rather than by the shim's answer. */
export function isLost(error: unknown): boolean {
  return error instanceof BunkerdError && error.code === "Unavailable" && isLostMessage(error.message);
}
