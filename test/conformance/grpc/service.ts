/** A service with one method of each kind, and what it saw: declared here, as none of containerd's streams requests only. */
import {
  create,
  createFileRegistry,
  type DescMethod,
  fromBinary,
  type Message,
  toBinary,
} from "@bufbuild/protobuf";
import {
  FieldDescriptorProto_Label,
  FieldDescriptorProto_Type,
  FileDescriptorProtoSchema,
  FileDescriptorSetSchema,
} from "@bufbuild/protobuf/wkt";
import type { HandlerContext } from "@connectrpc/connect";
import { bind, type ServiceBinding } from "../../../src/transport/registry.ts";

export interface Payload {
  data: Uint8Array;
  count: number;
  text: string;
}

const NAME = "bunkerd.conformance.v1.Conformance";

const file = create(FileDescriptorProtoSchema, {
  name: "bunkerd/conformance/v1/conformance.proto",
  package: "bunkerd.conformance.v1",
  syntax: "proto3",
  messageType: [
    {
      name: "Payload",
      field: [
        field("data", 1, FieldDescriptorProto_Type.BYTES),
        field("count", 2, FieldDescriptorProto_Type.INT32),
        field("text", 3, FieldDescriptorProto_Type.STRING),
      ],
    },
  ],
  service: [
    {
      name: "Conformance",
      method: [
        method("Echo", false, false),
        method("EchoEncoded", false, false),
        method("Missing", false, false),
        method("Collect", true, false),
        method("Gather", true, false),
        method("Spread", false, true),
        method("SpreadEncoded", false, true),
        method("Chat", true, true),
      ],
    },
  ],
});

function field(name: string, number: number, type: FieldDescriptorProto_Type) {
  return { name, number, type, label: FieldDescriptorProto_Label.OPTIONAL, jsonName: name };
}

function method(name: string, clientStreaming: boolean, serverStreaming: boolean) {
  const type = ".bunkerd.conformance.v1.Payload";
  return { name, inputType: type, outputType: type, clientStreaming, serverStreaming };
}

const files = create(FileDescriptorSetSchema, { file: [file] });

/** For clients of other processes: a FileDescriptorSet. */
export const DESCRIPTORS = toBinary(FileDescriptorSetSchema, files);

function serviceDesc() {
  const registry = createFileRegistry(files);
  const service = registry.getService(NAME);
  if (service === undefined) throw new Error(`${NAME} is not declared`);
  return service;
}

export const Conformance = serviceDesc();

function payloadDesc() {
  const echo: DescMethod | undefined = Conformance.methods[0];
  if (echo === undefined) throw new Error("Echo is not declared");
  return echo.input;
}

const PayloadDesc = payloadDesc();

export function encodePayload(payload: Partial<Payload>): Uint8Array {
  return toBinary(PayloadDesc, create(PayloadDesc, payload as Message));
}

export function decodePayload(bytes: Uint8Array): Payload {
  return fromBinary(PayloadDesc, bytes) as unknown as Payload;
}

export function pathOf(name: string): string {
  return `/${NAME}/${name}`;
}

/** What the implementations saw: a test that leaves `running` above 0 leaks. */
export interface Seen {
  running: number;
  /** Messages that Spread has handed out. */
  yielded: number;
  contexts: HandlerContext[];
  /** Resolves when an implementation of that method runs, or has run and was not waited for; "" is any. */
  entered(method: string): Promise<void>;
  /** Resolves when the next implementation has been left. */
  left(): Promise<void>;
}

export type Behaviour = (request: Payload, context: HandlerContext) => unknown;

/**
 * Echo answers its request, and behaves as `text` says; Collect counts bytes and messages; Gather answers the last; Spread answers `count` messages of the
 * request's data (-1: waits for the end of the call); Chat answers each message.
 */
export function conformanceService(behaviours: Record<string, Behaviour> = {}): {
  binding: ServiceBinding;
  seen: Seen;
} {
  let leave: (() => void)[] = [];
  let entering: string[] = [];
  let enter: (() => void)[] = [];
  const seen: Seen = {
    running: 0,
    yielded: 0,
    contexts: [],
    async entered(method) {
      const wanted = (name: string): boolean => method === "" || name === method;
      while (!entering.some(wanted)) await new Promise<void>((resolve) => enter.push(resolve));
      const at = entering.findIndex(wanted);
      entering = entering.filter((_, index) => index !== at);
    },
    left: () => new Promise((resolve) => leave.push(resolve)),
  };
  const entered = (context: HandlerContext): void => {
    seen.running += 1;
    seen.contexts.push(context);
    entering.push(context.method.name);
    const waiting = enter;
    enter = [];
    for (const resolve of waiting) resolve();
  };
  const exited = (): void => {
    seen.running -= 1;
    const waiting = leave;
    leave = [];
    for (const resolve of waiting) resolve();
  };
  const behave = async (request: Payload, context: HandlerContext): Promise<Payload> => {
    const behaviour = behaviours[request.text];
    if (behaviour !== undefined) await behaviour(request, context);
    return request;
  };
  const implementation = {
    async echo(request: unknown, context: HandlerContext) {
      entered(context);
      try {
        return (await behave(request as Payload, context)) as unknown as Message;
      } finally {
        exited();
      }
    },
    async collect(requests: AsyncIterable<unknown>, context: HandlerContext) {
      entered(context);
      try {
        let [bytes, count] = [0, 0];
        for await (const request of requests as AsyncIterable<Payload>) {
          await behave(request, context);
          bytes += request.data.length;
          count += 1;
        }
        return { count, text: String(bytes) } as unknown as Message;
      } finally {
        exited();
      }
    },
    async gather(requests: AsyncIterable<unknown>, context: HandlerContext) {
      entered(context);
      try {
        let last: Partial<Payload> = {};
        for await (const request of requests) last = await behave(request as Payload, context);
        return last as unknown as Message;
      } finally {
        exited();
      }
    },
    async *spread(request: unknown, context: HandlerContext) {
      entered(context);
      try {
        const { data, count } = await behave(request as Payload, context);
        if (count === -1) await aborted(context.signal);
        for (let at = 0; at < count; at++) {
          seen.yielded += 1;
          yield { data, count: at } as unknown as Message;
        }
      } finally {
        exited();
      }
    },
    async *chat(requests: AsyncIterable<unknown>, context: HandlerContext) {
      entered(context);
      try {
        for await (const request of requests)
          yield (await behave(request as Payload, context)) as unknown as Message;
      } finally {
        exited();
      }
    },
  };
  const encoded = {
    echoEncoded: (request: unknown) => encodePayload(request as Payload),
    *spreadEncoded(request: unknown, context: HandlerContext) {
      entered(context);
      try {
        const { data, count } = request as Payload;
        for (let at = 0; at < count; at++) yield encodePayload({ data, count: at });
      } finally {
        exited();
      }
    },
  };
  const binding = bind(Conformance, implementation as never, encoded as never);
  return { binding: binding as unknown as ServiceBinding, seen };
}

/** Rejects with the signal's reason once it is aborted. */
export function aborted(signal: AbortSignal): Promise<never> {
  return new Promise((_resolve, reject) => {
    const abort = (): void => reject(signal.reason);
    if (signal.aborted) abort();
    else signal.addEventListener("abort", abort, { once: true });
  });
}
