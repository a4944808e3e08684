/** What most cases are: send something wrong to a fresh server and see what becomes of it. */
import { expect, test } from "bun:test";
import type { Http2Limits } from "../../../src/transport/http2/limits.ts";
import { bodyOf, F, type Frame, grpcRequest, RawClient, request, settings, T, u32 } from "./raw-client.ts";
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

/** What `path` answers comes in exactly as many bytes as each window gives, and is `expected` in the end. */
export async function keepsWindows(
  client: RawClient,
  path: string,
  windows: readonly number[],
  expected: Buffer,
): Promise<void> {
  client.frame(T.settings, 0, 0, settings([[4, 0]]));
  client.frame(T.window, 0, 0, u32(2 ** 30));
  client.headers(1, grpcRequest(path), F.endStream);
  await client.settle();
  const frames: Frame[] = [];
  for (const window of windows) {
    client.frame(T.window, 0, 1, u32(window));
    const sent = (await client.settle()).filter((got) => got.type === T.data);
    expect(bodyOf(sent).length).toBe(window);
    frames.push(...sent);
  }
  client.frame(T.window, 0, 1, u32(2 ** 30));
  frames.push(...(await client.answer(1)));
  expect(Buffer.compare(bodyOf(frames), expected)).toBe(0);
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
