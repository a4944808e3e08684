/** A listener with the conformance service, that fails its test if a call, an implementation or an error is left over. */
import { expect } from "bun:test";
import { join } from "node:path";
import { type LogFields, type Logger, silentLogger } from "../../../src/lib/log.ts";
import type { Http2EngineFactory } from "../../../src/transport/engine.ts";
import { HealthStatus, healthBinding } from "../../../src/transport/health.ts";
import { http2Engine } from "../../../src/transport/http2/engine.ts";
import type { TransportLimits } from "../../../src/transport/limits.ts";
import { Listener } from "../../../src/transport/listener.ts";
import { reflectionBindings } from "../../../src/transport/reflection.ts";
import type { ObservedCall, ServiceBinding } from "../../../src/transport/registry.ts";
import { nodeHttp2Engine } from "../../support/node-http2.ts";
import { removeFolder, temporaryFolder } from "../../support/processes.ts";
import { type Behaviour, conformanceService, type Seen } from "./service.ts";

/** Every engine passes every test of this folder. */
export const ENGINES: readonly (readonly [name: string, engine: Http2EngineFactory])[] = [
  ["http2", http2Engine],
  ["node:http2", nodeHttp2Engine],
];

export interface ServerOptions {
  readonly behaviours?: Record<string, Behaviour>;
  readonly limits?: Partial<TransportLimits>;
  readonly bindings?: readonly ServiceBinding[];
}

export interface TestServer extends AsyncDisposable {
  readonly listener: Listener;
  readonly path: string;
  readonly folder: string;
  readonly seen: Seen;
  readonly health: HealthStatus;
  readonly observed: ObservedCall[];
  /** Errors that were logged; a test that wants some takes them out. */
  readonly errors: { message: string; fields: LogFields | undefined }[];
}

export async function startServer(
  engine: Http2EngineFactory,
  options: ServerOptions = {},
): Promise<TestServer> {
  const folder = temporaryFolder();
  const path = join(folder, "s.sock");
  const observed: ObservedCall[] = [];
  const errors: TestServer["errors"] = [];
  const logger: Logger = { ...silentLogger, error: (message, fields) => errors.push({ message, fields }) };
  const health = new HealthStatus();
  const { binding, seen } = conformanceService(options.behaviours);
  const bindings = [binding, healthBinding(health), ...(options.bindings ?? [])];
  const listener = new Listener(
    { path },
    {
      bindings: [...bindings, ...reflectionBindings(bindings)],
      logger,
      engine,
      observe: (call) => observed.push(call),
      ...(options.limits === undefined ? {} : { limits: options.limits }),
    },
  );
  await listener.start();
  return {
    listener,
    path,
    folder,
    seen,
    health,
    observed,
    errors,
    async [Symbol.asyncDispose]() {
      await listener.close(0);
      removeFolder(folder);
      // What was cancelled by closing gets the turns it needs to leave its `finally` blocks.
      for (let turn = 0; turn < 20 && seen.running > 0; turn++) await new Promise(setImmediate);
      expect({ openCalls: listener.openCalls, running: seen.running, errors }).toEqual({
        openCalls: 0,
        running: 0,
        errors: [],
      });
    },
  };
}
