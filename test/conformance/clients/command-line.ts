/** curl and h2load as clients of gRPC: bodies from files, all of a call's messages before its answers are looked at. */
import { join } from "node:path";
import { run } from "../../support/processes.ts";
import { envelope, messagesOf } from "../grpc/client.ts";
import type { TestServer } from "../grpc/server.ts";
import { decodePayload, encodePayload, pathOf } from "../grpc/service.ts";
import { ALL_KINDS, type Cell, KINDS, type Kind } from "./calls.ts";
import { OVER_BYTES, payloadOf, SIZES } from "./sizes.ts";

/** A call: the messages that are sent, and how many like the first must come back. */
interface Call {
  readonly kind: Kind;
  readonly messages: readonly Uint8Array[];
  readonly answers: number;
}

/** A call of one kind; streams have two messages each way, but for the largest. */
function callOf(kind: Kind, bytes: number): Call {
  const many = bytes > 1 << 20 ? 1 : 2;
  const message = payloadOf(bytes, kind === "server stream" ? { count: many } : {});
  return {
    kind,
    messages: Array<Uint8Array>(kind === "client stream" || kind === "bidi" ? many : 1).fill(message),
    answers: kind === "server stream" || kind === "bidi" ? many : 1,
  };
}

/** Every kind with messages of every size, and those over the limit, by one caller. */
async function cellsOf(caller: (call: Call) => Promise<string>): Promise<Cell[]> {
  const cells: Cell[] = [];
  for (const kind of ALL_KINDS) {
    for (const bytes of SIZES) cells.push([kind, bytes, "both ways", await caller(callOf(kind, bytes))]);
    cells.push([kind, OVER_BYTES, "up", await caller(callOf(kind, OVER_BYTES))]);
    const asking = encodePayload({ text: "over", count: kind === "server stream" ? 1 : 0 });
    cells.push([kind, OVER_BYTES, "down", await caller({ kind, messages: [asking], answers: 1 })]);
  }
  return cells;
}

const GRPC = ["-H", "content-type: application/grpc", "-H", "te: trailers"];

const bodyOf = (messages: readonly Uint8Array[]): Buffer =>
  Buffer.concat(messages.map((message) => envelope(message)));

/** How the server saw the only call since `before`, for a client that shows nothing of it. */
const refusal = (server: TestServer, before: number): string =>
  `refused: ${server.observed
    .slice(before)
    .map(({ code }) => code)
    .join()}`;

export function curlCells(server: TestServer): Promise<Cell[]> {
  const fileOf = (name: string): string => join(server.folder, name);
  return cellsOf(async ({ kind, messages, answers }) => {
    const before = server.observed.length;
    await Bun.write(fileOf("body"), bodyOf(messages));
    const { code } = await run([
      ...[
        "curl",
        "-sS",
        "--max-time",
        "60",
        "--http2-prior-knowledge",
        "--unix-socket",
        server.path,
        ...GRPC,
      ],
      ...["--data-binary", `@${fileOf("body")}`, "-D", fileOf("head"), "-o", fileOf("answer")],
      `http://localhost${pathOf(KINDS[kind])}`,
    ]);
    if (code !== 0) return `${refusal(server, before)}, curl ${code}`;
    const head = await Bun.file(fileOf("head")).text();
    const field = (name: string): string => new RegExp(`^${name}: (.*?)\r?$`, "m").exec(head)?.[1] ?? "";
    if (field("grpc-status") !== "0")
      return `${field("grpc-status")}: ${decodeURIComponent(field("grpc-message"))}`;
    const got = messagesOf(Buffer.from(await Bun.file(fileOf("answer")).arrayBuffer()));
    const data = Buffer.from(decodePayload(messages[0] ?? Buffer.alloc(0)).data);
    const same = got.every((answer) => data.equals(decodePayload(answer).data));
    return got.length === answers && same ? "ok" : `${got.length} answers`;
  });
}

/** It counts bytes only. */
export function h2loadCells(server: TestServer): Promise<Cell[]> {
  return cellsOf(async ({ kind, messages, answers }) => {
    const before = server.observed.length;
    const body = join(server.folder, "body");
    await Bun.write(body, bodyOf(messages));
    const target = [`--base-uri=unix:${server.path}`, `http://localhost${pathOf(KINDS[kind])}`];
    const { stdout } = await run(["h2load", "-n", "1", "-c", "1", "-d", body, ...GRPC, ...target]);
    if (server.observed[before]?.code !== "OK") return refusal(server, before);
    // The first of Spread's has no number, as that is 0.
    const awaited = answers * (5 + (messages[0]?.length ?? 0)) - (kind === "server stream" ? 2 : 0);
    const bytes = /\((\d+)\) data$/m.exec(stdout)?.[1];
    const done = stdout.includes(" 1 succeeded, 0 failed, 0 errored");
    return done && Number(bytes) === awaited ? "ok" : `${bytes} bytes of data for ${awaited}`;
  });
}
