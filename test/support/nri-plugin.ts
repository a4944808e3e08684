/**
 * An NRI plugin over the wire, as `nri/pkg/stub` is one for Go: connects to the socket, registers, answers events.
 */
import { connect, type Socket } from "node:net";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { type Client, createClient, type ServiceImpl } from "@connectrpc/connect";
import { type ConfigureRequest, Event, Plugin, Runtime } from "../../gen/nri/pkg/api/v1alpha1/api_pb.ts";
import { silentLogger } from "../../src/lib/log.ts";
import { Multiplexer, PLUGIN_CONNECTION, RUNTIME_CONNECTION } from "../../src/nri/multiplex.ts";
import { MethodTable } from "../../src/transport/grpc/methods.ts";
import { bind } from "../../src/transport/registry.ts";
import { ttrpcTransport } from "../../src/transport/ttrpc/client.ts";
import { ServerConnection } from "../../src/transport/ttrpc/server-connection.ts";

export interface PluginBehaviour {
  readonly name: string;
  readonly index: string;
  /** All if left out. */
  readonly events?: readonly Event[];
  readonly handlers?: Partial<ServiceImpl<typeof Plugin>>;
  /** Runtimes up to containerd 2.1 tell pods' events by StateChange: it is taken as the event's own method. */
  readonly anyVersion?: boolean;
  /** Does not answer Synchronize until this resolves. */
  readonly hold?: Promise<void>;
}

export interface TestPlugin extends Disposable {
  readonly runtime: Client<typeof Runtime>;
  readonly configuration: Promise<ConfigureRequest>;
  /** Resolves when it has been synchronized. */
  readonly ready: Promise<void>;
  readonly closed: Promise<unknown>;
  /** `METHOD` of each call, and the ids in it. */
  readonly calls: string[];
}

const METHODS = [
  ["runPodSandbox", "pod"],
  ["updatePodSandbox", "pod"],
  ["postUpdatePodSandbox", "pod"],
  ["stopPodSandbox", "pod"],
  ["removePodSandbox", "pod"],
  ["createContainer", "container"],
  ["postCreateContainer", "container"],
  ["startContainer", "container"],
  ["postStartContainer", "container"],
  ["updateContainer", "container"],
  ["postUpdateContainer", "container"],
  ["stopContainer", "container"],
  ["removeContainer", "container"],
  ["stateChange", "pod"],
] as const;

const METHOD_OF: Readonly<Partial<Record<Event, string>>> = {
  [Event.RUN_POD_SANDBOX]: "runPodSandbox",
  [Event.STOP_POD_SANDBOX]: "stopPodSandbox",
  [Event.REMOVE_POD_SANDBOX]: "removePodSandbox",
  [Event.POST_CREATE_CONTAINER]: "postCreateContainer",
  [Event.START_CONTAINER]: "startContainer",
  [Event.POST_START_CONTAINER]: "postStartContainer",
  [Event.POST_UPDATE_CONTAINER]: "postUpdateContainer",
  [Event.REMOVE_CONTAINER]: "removeContainer",
};

type Handler = (request: never, context: never) => unknown;

export function startPlugin(target: string | Socket, behaviour: PluginBehaviour): TestPlugin {
  const socket = typeof target === "string" ? connect({ path: target }) : target;
  const multiplexer = new Multiplexer(socket);
  const calls: string[] = [];
  const configured = Promise.withResolvers<ConfigureRequest>();
  const ready = Promise.withResolvers<void>();
  const { events, handlers = {}, hold, anyVersion = false } = behaviour;
  const implementation: Record<string, Handler> = {
    configure: (request: ConfigureRequest) => {
      configured.resolve(request);
      return { events: (events ?? []).reduce((mask: number, event) => mask | (1 << (event - 1)), 0) };
    },
    synchronize: async (request: { pods: { id: string }[]; containers: { id: string }[]; more: boolean }) => {
      calls.push(
        `synchronize ${[...request.pods, ...request.containers].map(({ id }) => id).join(" ")}`.trim(),
      );
      await hold;
      if (!request.more) ready.resolve();
      return { more: request.more };
    },
    validateContainerAdjustment: () => ({}),
  };
  for (const [method, subject] of METHODS) {
    implementation[method] = (request: Record<string, { id: string } | undefined>) => {
      calls.push(`${method} ${request[subject]?.id ?? ""}`);
      return {};
    };
  }
  for (const [method, handler] of Object.entries(handlers)) {
    const recorded = implementation[method];
    implementation[method] = async (request, context) => {
      await recorded?.(request, context);
      return (handler as Handler)(request, context);
    };
  }
  if (anyVersion) {
    implementation["stateChange"] = (request: { event: Event }, context) =>
      implementation[METHOD_OF[request.event] ?? ""]?.(request as never, context);
  }
  const table = new MethodTable([bind(Plugin, implementation as Partial<ServiceImpl<typeof Plugin>>)]);
  const server = { logger: silentLogger, observe: undefined, observeStart: undefined, openCalls: 0 };
  new ServerConnection(multiplexer.open(PLUGIN_CONNECTION), table, server);
  const transport = ttrpcTransport({ connect: () => multiplexer.open(RUNTIME_CONNECTION) });
  const runtime = createClient(Runtime, transport);
  const request: MessageInitShape<typeof Runtime.method.registerPlugin.input> = {
    pluginName: behaviour.name,
    pluginIdx: behaviour.index,
    NRIVersion: "test",
  };
  runtime.registerPlugin(request).catch((error: unknown) => {
    configured.reject(error);
    ready.reject(error);
  });
  configured.promise.catch(() => undefined);
  ready.promise.catch(() => undefined);
  return {
    ...{ runtime, calls, configuration: configured.promise, ready: ready.promise, closed: transport.closed },
    [Symbol.dispose]: () => multiplexer.close(),
  };
}
