/** Connections to a port in a network namespace, from the client's stream to a real socket. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { join } from "node:path";
import { type ByteStream, Inbox } from "../../../src/cri/streaming/byte-stream.ts";
import { forwardToPod } from "../../../src/cri/streaming/pod-connection.ts";
import {
  createNetworkNamespace,
  inNetworkNamespace,
  removeNetworkNamespace,
  setInterfaceUp,
} from "../../../src/linux/netns.ts";
import { until } from "../../support/containers.ts";
import { openFiles } from "../../support/open-files.ts";
import { removeFolder, temporaryFolder } from "../../support/processes.ts";

const folder = temporaryFolder();
const pod = join(folder, "pod");
const PORT = 8080;

beforeAll(() => {
  createNetworkNamespace(pod);
  inNetworkNamespace(pod, () => setInterfaceUp("lo"));
});
afterAll(() => {
  removeNetworkNamespace(pod);
  removeFolder(folder);
});

/** Counts what it is sent and answers when the other side has ended, or at once. */
function listenInPod(hostname: string, answer: (received: number) => Uint8Array, early = false) {
  const reply = (socket: Bun.Socket<{ received: number }>): void => {
    socket.write(answer(socket.data.received));
    socket.end();
  };
  return inNetworkNamespace(pod, () => ({
    server: Bun.listen<{ received: number }>({
      hostname,
      port: PORT,
      allowHalfOpen: true,
      socket: {
        open(socket) {
          socket.data = { received: 0 };
          if (early) reply(socket);
        },
        data: (socket, bytes) => {
          socket.data.received += bytes.length;
        },
        end: (socket) => {
          if (!early) reply(socket);
        },
        error: () => undefined,
      },
    }),
  })).server;
}

/** A client's stream: what it has sent, and what it got. */
function client(sent: Uint8Array, ends: boolean) {
  const inbox = new Inbox(() => undefined);
  inbox.push(sent);
  if (ends) inbox.end();
  const got: Uint8Array[] = [];
  let ended = false;
  const stream: ByteStream = {
    bytes: inbox,
    async write(bytes) {
      got.push(new Uint8Array(bytes));
    },
    end() {
      ended = true;
    },
  };
  return { stream, inbox, text: () => Buffer.concat(got).toString(), ended: () => ended };
}

const never = new AbortController().signal;

describe("forwardToPod", () => {
  test.each(["127.0.0.1", "::1"])(
    "reaches what listens on %s, and the answer to a closed stream comes",
    async (address) => {
      const server = listenInPod(address, (received) => Buffer.from(`got ${received}`));
      try {
        const { stream, text, ended } = client(new Uint8Array(5_000_000), true);
        await forwardToPod(pod, PORT, stream, never);
        expect(text()).toBe("got 5000000");
        expect(ended()).toBe(true);
      } finally {
        server.stop(true);
      }
    },
  );

  test("ends soon after the pod has, whatever the client still holds open", async () => {
    const server = listenInPod("127.0.0.1", () => Buffer.from("bye"), true);
    try {
      const { stream, text } = client(Buffer.from("hello"), false);
      const began = performance.now();
      await forwardToPod(pod, PORT, stream, never);
      expect(text()).toBe("bye");
      expect(performance.now() - began).toBeLessThan(3000);
    } finally {
      server.stop(true);
    }
  });

  test("ends with the client", async () => {
    const server = listenInPod("127.0.0.1", () => new Uint8Array(0));
    try {
      const gone = new AbortController();
      const { stream, inbox } = client(Buffer.from("hello"), false);
      const forwarding = forwardToPod(pod, PORT, stream, gone.signal);
      setTimeout(() => {
        inbox.end();
        gone.abort();
      }, 20);
      await forwarding;
    } finally {
      server.stop(true);
    }
  });

  test("tells what is not there", async () => {
    const { stream } = client(new Uint8Array(0), true);
    const refused = await forwardToPod(pod, 81, stream, never).catch(String);
    expect(refused).toContain(
      `failed to execute portforward in network namespace "${pod}": failed to connect to localhost:81 inside namespace "${pod}", ` +
        "IPv4: dial tcp4 127.0.0.1:81: connect: connection refused IPv6 dial tcp6 [::1]:81: connect: connection refused",
    );
    const missing = await forwardToPod(join(folder, "none"), 81, stream, never).catch(String);
    expect(missing).toContain("failed to execute portforward in network namespace");
  });

  test("leaves no descriptor behind", async () => {
    const server = listenInPod("127.0.0.1", (received) => Buffer.from(`${received}`));
    try {
      const before = openFiles();
      for (let round = 0; round < 50; round++)
        await forwardToPod(pod, PORT, client(Buffer.from("x"), true).stream, never);
      await until("sockets are closed", () => openFiles() <= before + 2);
    } finally {
      server.stop(true);
    }
  });
});
