/** The server of the soak, a process of its own so that its memory is its own: answers each line on stdin with what is open, and what memory it has. */
import { silentLogger } from "../../../src/lib/log.ts";
import { Http2Server } from "../../../src/transport/http2/engine.ts";
import { Listener } from "../../../src/transport/listener.ts";
import { bind, type ServiceBinding } from "../../../src/transport/registry.ts";
import { Conformance, encodePayload, type Payload } from "../grpc/service.ts";

const [path = ""] = process.argv.slice(2);
let running = 0;

/** Counts an implementation until it has been left. */
async function* counted<T>(values: () => AsyncIterable<T>): AsyncIterable<T> {
  running += 1;
  try {
    yield* values();
  } finally {
    running -= 1;
  }
}

/** The conformance service's methods, without its memory of calls. */
const implementation = {
  echo: (request: unknown) => request,
  async collect(requests: AsyncIterable<Payload>) {
    let count = 0;
    for await (const _ of counted(() => requests)) count += 1;
    return { count };
  },
  spread: ({ data, count }: Payload, { signal }: { signal: AbortSignal }) =>
    counted(async function* () {
      if (count === -1) await new Promise((resolve) => signal.addEventListener("abort", resolve));
      for (let at = 0; at < count; at++) yield { data, count: at };
    }),
  chat: (requests: AsyncIterable<Payload>) => counted(() => requests),
};
const encoded = { echoEncoded: (request: unknown) => encodePayload(request as Payload) };
const binding = bind(Conformance, implementation as never, encoded as never) as ServiceBinding;

const engines: Http2Server[] = [];
const errors: string[] = [];
const logger = { ...silentLogger, error: (message: string) => void errors.push(message) };
const listener = new Listener(
  { path },
  {
    bindings: [binding],
    logger,
    engine: (handlers) => {
      const engine = new Http2Server(handlers);
      engines.push(engine);
      return engine;
    },
  },
);
await listener.start();
process.stdout.write("listening\n");
for await (const _ of console) {
  const [connections, streams] = [engines[0]?.connections ?? -1, engines[0]?.openStreams ?? -1];
  Bun.gc(true);
  const { rss, heapUsed, external } = process.memoryUsage();
  const liveBytes = heapUsed + external;
  process.stdout.write(
    `${JSON.stringify({ connections, streams, calls: listener.openCalls, running, errors, rss, liveBytes })}\n`,
  );
}
await listener.close(0);
