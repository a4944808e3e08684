/** What most cases are: send something wrong to a fresh server and see what becomes of it. */
import { expect, test } from "bun:test";
import type { Http2Limits } from "../../../src/transport/http2/limits.ts";
import { F, RawClient, request, T } from "./raw-client.ts";
import { type EngineServer, startEngine } from "./server.ts";

/** A fresh server and a connection with SETTINGS exchanged. */
export async function served(
  check: (client: RawClient, server: EngineServer) => Promise<void>,
  limits: Partial<Http2Limits> = {},
): Promise<void> {
  await using server = await startEngine(limits);
  await using client = await RawClient.open(server.path);
  await check(client, server);
}

/** What `send` sends ends the connection with `code`; afterwards the server serves others. */
export function breaks(
  name: string,
  code: number,
  send: (client: RawClient) => void,
  limits: Partial<Http2Limits> = {},
): void {
  test(name, () =>
    served(async (client, server) => {
      send(client);
      expect(await client.connectionError()).toMatchObject({ code });
      await using other = await RawClient.open(server.path);
      await alive(other);
    }, limits),
  );
}

/** What `send` sends resets stream `id` with `code`; the connection and other streams live on. */
export function resets(
  name: string,
  id: number,
  code: number,
  send: (client: RawClient) => void,
  limits: Partial<Http2Limits> = {},
): void {
  test(name, () =>
    served(async (client) => {
      send(client);
      expect(await client.streamError(id)).toBe(code);
      await alive(client);
    }, limits),
  );
}

/** What `send` sends is let pass. */
export function passes(
  name: string,
  send: (client: RawClient) => void,
  limits: Partial<Http2Limits> = {},
): void {
  test(name, () =>
    served(async (client) => {
      send(client);
      const said = (await client.settle()).filter((got) => got.type === T.reset || got.type === T.goaway);
      expect(said).toEqual([]);
      await alive(client);
    }, limits),
  );
}

/** A request on a stream that no case uses is answered. */
export async function alive(client: RawClient): Promise<void> {
  client.headers(10_001, request("/"), F.endStream);
  expect((await client.answer(10_001)).at(0)?.type).toBe(T.headers);
}
