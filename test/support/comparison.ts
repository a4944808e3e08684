/**
 * Calls over gRPC, made to containerd 2.1 and to bunkerd in the same run: answers, codes and messages must be the same.
 * A new call is one line in `test/integration/rpc/`; what the reference does is the expectation.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { create, type DescMethodUnary, type DescService, type MessageInitShape } from "@bufbuild/protobuf";
import { type Any, AnySchema } from "@bufbuild/protobuf/wkt";
import { type CallOptions, Code, ConnectError } from "@connectrpc/connect";
import { type Daemon, daemonKinds, startDaemon } from "./daemons.ts";
import { type Connection, connectGrpc, inNamespace } from "./grpc.ts";

export interface Step {
  readonly name: string;
  readonly call: (connection: Connection) => Promise<unknown>;
  /** What the reference's answer must match, so that the comparison is of the case that is meant. */
  readonly shows: RegExp | undefined;
  /** containerd's process ends of this request, so only bunkerd is asked. */
  readonly fatal?: boolean;
  /** What bunkerd answers on purpose, other than containerd 2.1. */
  readonly departure?: object;
}

/** A request without the message that it is about: containerd 2.1 dereferences nil and ends; ours is the caller's fault. */
export function fatal(step: Step): Step {
  return { ...step, fatal: true };
}

/** A call that bunkerd answers otherwise than containerd 2.1, on purpose; `docs/status.md` lists them with the reasons. */
export function departs(departure: { code: string; message: string | RegExp }, step: Step): Step {
  const { code, message } = departure;
  const answer = { code, message: message instanceof RegExp ? expect.stringMatching(message) : message };
  return { ...step, departure: answer, name: `${step.name} (departs)` };
}

/** A call of one method in namespace "default", or with the options given. */
export function step<S extends DescService, M extends keyof S["method"] & string>(
  service: S,
  method: M,
  request: S["method"][M] extends DescMethodUnary<infer I> ? MessageInitShape<I> : never,
  shows?: RegExp,
  options: CallOptions = inNamespace("default"),
): Step {
  return {
    name: `${service.typeName.split(".").at(-1)}.${method} ${JSON.stringify(request, shorten).slice(0, 120)}`,
    call: async (connection) => {
      const client = connection.client(service) as Record<
        string,
        (request: unknown, options: CallOptions) => unknown
      >;
      return client[method]?.(request, options);
    },
    shows,
  };
}

function shorten(_key: string, value: unknown): unknown {
  if (value instanceof Uint8Array) return `${value.length} bytes`;
  if (typeof value === "bigint") return String(value);
  return typeof value === "string" && value.length > 40 ? `${value.slice(0, 12)}…(${value.length})` : value;
}

export const none: CallOptions = {};

export function any(typeUrl: string, text: string): Any {
  return create(AnySchema, { typeUrl, value: new TextEncoder().encode(text) });
}

export function mask(...paths: string[]): { paths: string[] } {
  return { paths };
}

export const spec = any("types.containerd.io/opencontainers/runtime-spec/1/Spec", '{"ociVersion":"1.2.0"}');
export const runtime = { name: "io.containerd.runc.v2" };
export const web = { id: "web", runtime, spec };

/** Ids that are not as usual: what is right and what is wrong is the reference's word. */
export const ODD_IDS = [
  "",
  ".",
  "..",
  "a/b",
  "/",
  "-a",
  "a-",
  "a--b",
  "a.b-c_d",
  "A",
  "ä",
  "a b",
  "a\u0000b",
  "a\nb",
  "x".repeat(76),
  "x".repeat(77),
  "_a",
  "0",
];

/** What is no digest, or of an algorithm that nobody has. */
export const ODD_DIGESTS = [
  "",
  ":",
  "sha256",
  "sha256:",
  "sha256:!!",
  ":abc",
  "md5:d41d8cd98f00b204e9800998ecf8427e",
  "SHA256:aa",
  `sha256:${"A".repeat(64)}`,
  `sha256:${"a".repeat(63)}`,
  `sha256:${"ä".repeat(32)}`,
  `sha256:../../${"a".repeat(58)}`,
  "sha256:../../../etc/passwd",
  "sha256:%2e%2e",
  "a\u0000b:00",
];

/** Times, the lease id that the daemon makes and its folder are each daemon's own. */
function describeAnswer(answer: unknown): unknown {
  const text = JSON.stringify(answer, (_key, value: unknown) => {
    if (value instanceof Uint8Array) return `bytes ${Buffer.from(value).toString("latin1")}`;
    return typeof value === "bigint" ? String(value) : value;
  });
  return JSON.parse(
    text
      .replaceAll(/"seconds":"\d{9,}","nanos":\d+/g, '"seconds":"now"')
      .replaceAll(/"seconds":"\d{9,}"/g, '"seconds":"now"')
      .replaceAll(/"\d{1,10}-[\w-]{4}"/g, '"<lease>"')
      .replaceAll(/\/bkt-\w{6}\//g, "/<folder>/"),
  );
}

/** What the call ended in: the answer, or code and message. */
async function outcomeOf(step: Step, connection: Connection): Promise<unknown> {
  try {
    return describeAnswer(await step.call(connection));
  } catch (error) {
    if (!(error instanceof ConnectError)) throw error;
    return { code: Code[error.code], message: error.rawMessage };
  }
}

const CALLERS_FAULT = /^(InvalidArgument|NotFound|Unimplemented)$/;

/** Makes a test of each step, in order, on one pair of daemons; `config` is more lines of their config.toml. */
export function compareSteps(steps: readonly Step[], config = ""): void {
  const kinds = daemonKinds("containerd-2.1", "bunkerd");
  const daemons: Daemon[] = [];
  const connections: Connection[] = [];

  beforeAll(async () => {
    for (const kind of kinds) {
      const daemon = await startDaemon(kind, { config });
      daemons.push(daemon);
      connections.push(connectGrpc(daemon.socket));
    }
  });

  afterAll(async () => {
    for (const connection of connections) connection.close();
    for (const daemon of daemons) await daemon.stop();
  });

  test.each(steps.map((step, index) => [`${index} ${step.name}`, step] as const))(
    "%s",
    async (_title, step) => {
      const asked = connections.filter((_, index) => step.fatal !== true || kinds[index] === "bunkerd");
      const outcomes: unknown[] = [];
      for (const connection of asked) outcomes.push(await outcomeOf(step, connection));
      const [reference, ...others] = outcomes;
      if (process.env["BUNKERD_TEST_SHOW"] !== undefined) {
        process.stdout.write(`${step.name}\n   ${JSON.stringify(reference)?.slice(0, 300)}\n`);
      }
      if (step.shows !== undefined)
        expect(JSON.stringify(reference).replaceAll('\\"', '"')).toMatch(step.shows);
      for (const other of others) {
        if (step.departure === undefined) expect(other).toEqual(reference);
        else expect(other).toEqual(step.departure);
        if (step.departure !== undefined) expect(reference).not.toEqual(step.departure);
      }
      if (step.fatal === true && asked.length > 0) {
        expect(reference).toMatchObject({ code: expect.stringMatching(CALLERS_FAULT) });
      }
    },
  );
}
