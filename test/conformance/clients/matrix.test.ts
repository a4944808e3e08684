/**
 * Clients by kinds of RPC by sizes of messages (issue 4): each call that a client can make at all is made and answered. Clients of other
 * processes, the test's server or, for ctr, the daemon.
 */
import { afterAll, describe, expect, test } from "bun:test";
import { join } from "node:path";
import { http2Engine } from "../../../src/transport/http2/engine.ts";
import { startDaemon, type Version, WITHOUT_COLLECTION } from "../../support/daemons.ts";
import { output } from "../../support/processes.ts";
import { startServer, type TestServer } from "../grpc/server.ts";
import { DESCRIPTORS } from "../grpc/service.ts";
import { ALL_KINDS, type Cell, type Kind } from "./calls.ts";
import { curlCells, h2loadCells } from "./command-line.ts";
import { contentCells, SPEC_SIZES, unaryCells } from "./ctr.ts";
import { OVER_BYTES, over, SIZES } from "./sizes.ts";

const EVERY = { up: [OVER_BYTES], down: [OVER_BYTES], "both ways": SIZES };

/** Where a client sees nothing but that the server ended its call early, the server's log of calls says why. */
const REFUSED = /larger than|^refused: ResourceExhausted/;

const table: string[] = [];
afterAll(() => process.stdout.write(`${table.join("\n")}\n`));

/** Each cell that must be there is, and has gone as it must; what is left out is printed with its reason. */
function expectCells(
  client: string,
  cells: readonly Cell[],
  kinds: Readonly<Partial<Record<Kind, Readonly<Partial<Record<Cell[2], readonly number[]>>>>>>,
  cannot: Readonly<Partial<Record<Kind, string>>> = {},
): void {
  const wanted = ALL_KINDS.flatMap((kind) =>
    Object.entries(kinds[kind] ?? {}).flatMap(([direction, sizes]) =>
      sizes.map((bytes) => `${kind}, ${bytes} bytes ${direction}`),
    ),
  );
  expect(cells.map(([kind, bytes, direction]) => `${kind}, ${bytes} bytes ${direction}`).sort()).toEqual(
    wanted.sort(),
  );
  const refusals = (kind: Kind): boolean => kinds[kind]?.["both ways"] !== undefined;
  const wrong = cells.filter(([kind, bytes, , outcome]) =>
    bytes === OVER_BYTES && refusals(kind) ? !REFUSED.test(outcome) : outcome !== "ok",
  );
  expect(wrong).toEqual([]);
  for (const kind of ALL_KINDS) {
    const sizes = cells
      .filter((cell) => cell[0] === kind)
      .map(([, bytes, direction]) => `${bytes} ${direction}`);
    if (sizes.length > 0) table.push(`${client}: ${kind}: ${sizes.join(", ")}`);
    if (cannot[kind] !== undefined) table.push(`skipped: ${client}: ${kind}: ${cannot[kind]}`);
  }
}

const ALL = Object.fromEntries(ALL_KINDS.map((kind) => [kind, EVERY])) as Record<Kind, typeof EVERY>;

const serve = (): Promise<TestServer> => startServer(http2Engine, { behaviours: { over } });

describe.each([
  ["node", "@grpc/grpc-js"],
  ["node", "node:http2"],
  ["node", "Connect's gRPC"],
  ["node", "Connect's gRPC-Web, HTTP/1.1"],
  ["node", "Connect's gRPC-Web, HTTP/2"],
  ["node", "Connect, HTTP/1.1"],
  ["node", "Connect, HTTP/2"],
  // As other programs on Bun have it; our own client has `src/transport/grpc/client.test.ts`.
  [process.execPath, "Connect's gRPC"],
] as const)("%s", (runtime, client) => {
  const none = Bun.which(runtime) === null;
  if (none) process.stdout.write(`skipped: ${client}: no ${runtime}\n`);
  test.skipIf(none)(
    client,
    async () => {
      await using server = await serve();
      const descriptors = join(server.folder, "descriptors");
      await Bun.write(descriptors, DESCRIPTORS);
      const wanted = { client, socket: server.path, descriptors, sizes: SIZES, over: OVER_BYTES };
      const printed = await output([
        runtime,
        join(import.meta.dir, "javascript.mjs"),
        JSON.stringify(wanted),
      ]);
      const cells = printed
        .trim()
        .split("\n")
        .map((line) => JSON.parse(line) as Cell);
      expectCells(runtime === "node" ? client : `${client} on Bun`, cells, ALL);
    },
    60_000,
  );
});

describe("command line", () => {
  test("curl --http2-prior-knowledge", async () => {
    await using server = await serve();
    expectCells("curl", await curlCells(server), ALL);
    table.push("skipped: curl: bidi one by one: it looks at no answer before it has sent its body");
  }, 60_000);

  test("h2load", async () => {
    await using server = await serve();
    expectCells("h2load", await h2loadCells(server), ALL);
    table.push("skipped: h2load: bidi one by one: its body is one file");
  }, 60_000);
});

describe.each([["1.6"], ["2.1"]] as const)("ctr %s", (version: Version) => {
  test("containers and content", async () => {
    await using daemon = await startDaemon("bunkerd", { config: WITHOUT_COLLECTION });
    const cells = [...(await unaryCells(version, daemon)), ...(await contentCells(version, daemon))];
    const sizes = [...SIZES, OVER_BYTES];
    expectCells(
      `ctr ${version}`,
      cells,
      {
        unary: { up: [OVER_BYTES], "both ways": SPEC_SIZES },
        bidi: { up: sizes },
        "server stream": { down: sizes },
      },
      { "client stream": "containerd's services have none" },
    );
    table.push(`skipped: ctr ${version}: unary, 1 byte: no request of its is so short`);
    table.push(`skipped: ctr ${version}: unary, ${OVER_BYTES} down: it lists by ListStream`);
  }, 60_000);
});
