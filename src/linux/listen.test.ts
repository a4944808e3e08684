import { expect, test } from "bun:test";
import { closeSync, openSync } from "node:fs";
import { setBacklog } from "./listen.ts";

test("a descriptor that is no socket is refused", () => {
  const fd = openSync("/dev/null", "r");
  expect(setBacklog(fd, 10)).toBe(false);
  closeSync(fd);
});

test("a listening socket goes on listening", async () => {
  const listener = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data: () => undefined } });
  const fd: number = (listener as unknown as { fd: number }).fd;
  expect(setBacklog(fd, 77)).toBe(true);
  // /proc/net has no backlog: a burst that is larger than Bun's own is accepted in test/conformance/grpc/listener.test.ts.
  const socket = await Bun.connect({
    hostname: "127.0.0.1",
    port: listener.port,
    socket: { data: () => undefined },
  });
  socket.end();
  listener.stop(true);
});
