/** One plugin's connection, from its registration to its end: NRI's `pkg/adaptation/plugin.go`. */
import type { Socket } from "node:net";
import { toBinary } from "@bufbuild/protobuf";
import { type CallOptions, type Client, Code, ConnectError, createClient } from "@connectrpc/connect";
import {
  type Container,
  ContainerSchema,
  type ContainerUpdate,
  Event,
  EventSchema,
  Plugin as PluginService,
  type PodSandbox,
  PodSandboxSchema,
  Runtime,
  type UpdateContainersRequest,
} from "#gen/nri/pkg/api/v1alpha1/api_pb.ts";
import type { Logger } from "../lib/log.ts";
import { BunkerdError, messageOf, quote } from "../model/errors.ts";
import { MethodTable } from "../transport/grpc/methods.ts";
import { bind } from "../transport/registry.ts";
import { codeName } from "../transport/status.ts";
import { ttrpcTransport } from "../transport/ttrpc/client.ts";
import { MAX_MESSAGE_BYTES } from "../transport/ttrpc/frames.ts";
import { ServerConnection } from "../transport/ttrpc/server-connection.ts";
import { Multiplexer, PLUGIN_CONNECTION, RUNTIME_CONNECTION } from "./multiplex.ts";
import { assertPluginBase, assertPluginIndex, type PluginName } from "./names.ts";

export type PluginClient = Client<typeof PluginService>;

export interface PluginTimeouts {
  readonly registrationMs: number;
  readonly requestMs: number;
}

export interface PluginOptions {
  /** Of one that was launched; others tell theirs. */
  readonly name?: PluginName;
  /** What {@link Plugin.configure} hands over. */
  readonly config?: string;
  readonly timeouts: PluginTimeouts;
}

export interface PluginDependencies {
  readonly logger: Logger;
  /** The plugin changes containers without being asked. Answers those that failed and must not. */
  readonly updateContainers: (request: UpdateContainersRequest) => Promise<ContainerUpdate[]>;
}

/** What a plugin is told of who it talks to. */
export interface RuntimeIdentity {
  readonly name: string;
  readonly version: string;
  readonly nriVersion: string;
}

/** All bits that are events. */
const ALL_EVENTS = (1 << (Event.LAST - 1)) - 1;
/** What a message of Synchronize may hold beside its objects. */
const SYNC_MARGIN_BYTES = 1024;

export class Plugin {
  /** Resolves when the connection has ended, whoever ended it. */
  readonly closed: Promise<void>;
  readonly #options: PluginOptions;
  readonly #logger: Logger;
  readonly #multiplexer: Multiplexer;
  readonly #client: PluginClient;
  readonly #registered = Promise.withResolvers<void>();
  #name: PluginName;
  #events = 0;
  #ended = false;
  /** Events that the plugin has no method for: it is told by StateChange. */
  readonly #byStateChange = new Set<Event>();

  constructor(socket: Socket, options: PluginOptions, { logger, updateContainers }: PluginDependencies) {
    this.#options = options;
    this.#logger = logger;
    this.#name = options.name ?? { index: "", base: "" };
    this.#multiplexer = new Multiplexer(socket);
    const transport = ttrpcTransport({ connect: () => this.#multiplexer.open(PLUGIN_CONNECTION) });
    this.#client = createClient(PluginService, transport);
    const runtime = bind(Runtime, {
      registerPlugin: ({ pluginName, pluginIdx, NRIVersion }) => {
        this.#register({ base: pluginName, index: pluginIdx }, NRIVersion);
        return {};
      },
      updateContainers: async (request) => ({ failed: await updateContainers(request) }),
    });
    const server = { logger, observe: undefined, observeStart: undefined, openCalls: 0 };
    const table = new MethodTable([runtime]);
    new ServerConnection(this.#multiplexer.open(RUNTIME_CONNECTION), table, server);
    // Nobody may wait for it.
    this.#registered.promise.catch(() => undefined);
    this.closed = transport.closed.then(() => {
      this.#registered.reject(
        new BunkerdError("Unavailable", "failed to register plugin, connection closed"),
      );
      this.close();
    });
  }

  /** `10-logger` */
  get name(): string {
    return `${this.#name.index}-${this.#name.base}`;
  }

  get index(): string {
    return this.#name.index;
  }

  get base(): string {
    return this.#name.base;
  }

  get ended(): boolean {
    return this.#ended;
  }

  subscribes(event: Event): boolean {
    return (this.#events & (1 << (event - 1))) !== 0;
  }

  /** Waits until it has registered, then configures it. @throws DeadlineExceeded, InvalidArgument, what the plugin says */
  async start(identity: RuntimeIdentity): Promise<void> {
    const { registrationMs, requestMs } = this.#options.timeouts;
    const late = setTimeout(() => {
      this.#registered.reject(new BunkerdError("DeadlineExceeded", "plugin registration timed out"));
    }, registrationMs);
    try {
      await this.#registered.promise;
      const { events } = await this.#client.configure(
        {
          config: this.#options.config ?? "",
          runtimeName: identity.name,
          runtimeVersion: identity.version,
          registrationTimeout: BigInt(registrationMs),
          requestTimeout: BigInt(requestMs),
          NRIVersion: identity.nriVersion,
        },
        { timeoutMs: requestMs },
      );
      const unknown = events & ~ALL_EVENTS;
      if (unknown !== 0)
        throw new BunkerdError("InvalidArgument", `invalid plugin events: 0x${(unknown >>> 0).toString(16)}`);
      this.#events = events === 0 ? ALL_EVENTS : events;
    } catch (error) {
      this.close();
      throw fromPlugin(error);
    } finally {
      clearTimeout(late);
    }
  }

  /** Tells what there is, in as many calls as its size needs. @throws what the plugin says; it is closed then */
  async synchronize(
    pods: readonly PodSandbox[],
    containers: readonly Container[],
  ): Promise<readonly ContainerUpdate[]> {
    const timeoutMs = this.#options.timeouts.requestMs;
    const parts = splitState(pods, containers);
    try {
      for (const [index, part] of parts.entries()) {
        const more = index < parts.length - 1;
        const answer = await this.#client.synchronize({ ...part, more }, { timeoutMs });
        if (!more) return answer.update;
        if (!answer.more || answer.update.length > 0)
          throw new BunkerdError("Unimplemented", "plugin does not handle split sync requests");
      }
      return [];
    } catch (error) {
      this.close();
      throw fromPlugin(error);
    }
  }

  /**
   * One event, if the plugin has subscribed to it. One that does not answer in time, or has gone, is closed and has no say: undefined.
   * @throws what the plugin says, Canceled
   */
  async call<T>(
    event: Event,
    run: (client: PluginClient, options: CallOptions) => Promise<T>,
    signal?: AbortSignal,
  ): Promise<T | undefined> {
    if (this.#ended || !this.subscribes(event)) return undefined;
    const options = {
      timeoutMs: this.#options.timeouts.requestMs,
      ...(signal === undefined ? {} : { signal }),
    };
    try {
      return await run(this.#client, options);
    } catch (error) {
      if (!isFatal(error)) throw fromPlugin(error);
      const what = EventSchema.value[event]?.name ?? String(event);
      this.#logger.error("closing plugin, it failed to handle a request", {
        plugin: this.name,
        event: what,
        error,
      });
      this.close();
      return undefined;
    }
  }

  /** As {@link call}, for an event that plugins of older versions are told by StateChange. */
  async notify(
    event: Event,
    about: { readonly pod?: PodSandbox; readonly container?: Container },
    run: (client: PluginClient, options: CallOptions) => Promise<unknown>,
    signal?: AbortSignal,
  ): Promise<void> {
    const byStateChange = (): Promise<unknown> =>
      this.call(event, (client, options) => client.stateChange({ event, ...about }, options), signal);
    if (this.#byStateChange.has(event)) {
      await byStateChange();
      return;
    }
    try {
      await this.call(event, run, signal);
    } catch (error) {
      if (!(error instanceof BunkerdError && error.code === "Unimplemented")) throw error;
      this.#logger.warn("plugin uses deprecated StateChange", {
        plugin: this.name,
        event: EventSchema.value[event]?.name,
      });
      this.#byStateChange.add(event);
      await byStateChange();
    }
  }

  close(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#multiplexer.close();
  }

  #register(name: PluginName, nriVersion: string): void {
    try {
      if (this.#options.name === undefined) {
        assertPluginBase(name.base);
        assertPluginIndex(name.index);
        this.#name = name;
      }
    } catch (error) {
      const words = `plugin registered with an invalid name: ${messageOf(error)}`;
      // The answer goes out first: with the failure the connection ends.
      setImmediate(() =>
        this.#registered.reject(new BunkerdError("InvalidArgument", words, { cause: error })),
      );
      throw error;
    }
    this.#logger.info("NRI plugin registered", { plugin: this.name, nriVersion: nriVersion || "unknown" });
    this.#registered.resolve();
  }
}

/** The connection is of no use any more: lost, out of step, or too slow. What the plugin itself answers is not. */
function isFatal(error: unknown): boolean {
  if (!(error instanceof ConnectError)) return true;
  const answered = (error as { isWireError?: boolean }).isWireError === true;
  return !answered && error.code !== Code.Canceled && error.code !== Code.ResourceExhausted;
}

/** Words and code as they came. */
function fromPlugin(error: unknown): unknown {
  return error instanceof ConnectError
    ? new BunkerdError(codeName(error.code), error.rawMessage, { cause: error })
    : error;
}

interface State {
  readonly pods: readonly PodSandbox[];
  readonly containers: readonly Container[];
}

/** Pods before containers, each part within a message. @throws ResourceExhausted if one object alone is too large */
export function splitState(
  pods: readonly PodSandbox[],
  containers: readonly Container[],
  maxBytes = MAX_MESSAGE_BYTES - SYNC_MARGIN_BYTES,
): readonly { pods: PodSandbox[]; containers: Container[] }[] {
  let part: { pods: PodSandbox[]; containers: Container[] } = { pods: [], containers: [] };
  const parts = [part];
  let bytes = 0;
  const room = (id: string, size: number): void => {
    if (size > maxBytes)
      throw new BunkerdError("ResourceExhausted", `NRI state of ${quote(id)}: ${size} bytes in one message`);
    if (bytes + size > maxBytes) {
      part = { pods: [], containers: [] };
      parts.push(part);
      bytes = 0;
    }
    bytes += size;
  };
  // Key and length of a member take at most this.
  const overhead = 8;
  for (const pod of pods) {
    room(pod.id, toBinary(PodSandboxSchema, pod).length + overhead);
    part.pods.push(pod);
  }
  for (const container of containers) {
    room(container.id, toBinary(ContainerSchema, container).length + overhead);
    part.containers.push(container);
  }
  return parts satisfies readonly State[];
}
