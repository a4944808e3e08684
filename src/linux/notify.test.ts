import { expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { sendDatagram, unixAddress } from "./notify.ts";

/** Bun has no unix datagram sockets to receive with; python3 of the base system has. */
const RECEIVER = `
import socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
name = sys.argv[1]
s.bind(chr(0) + name[1:] if name.startswith("@") else name)
print("bound", flush=True)
print(s.recv(4096).decode(), flush=True)
`;

async function receive(name: string, text: string): Promise<string> {
  const receiver = Bun.spawn(["python3", "-c", RECEIVER, name], { stdout: "pipe", stderr: "inherit" });
  const reader = receiver.stdout.getReader();
  try {
    const decoder = new TextDecoder();
    let output = "";
    while (!output.includes("bound\n")) output += decoder.decode((await reader.read()).value);
    expect(sendDatagram(name, text)).toBe(true);
    for (let part = await reader.read(); !part.done; part = await reader.read())
      output += decoder.decode(part.value);
    return output.slice("bound\n".length).trimEnd();
  } finally {
    receiver.kill();
    await receiver.exited;
  }
}

const python = Bun.which("python3");
if (python === null) process.stdout.write("skipped: sendDatagram: no python3 to receive with\n");

test.skipIf(python === null)("a datagram arrives at a path and at an abstract name", async () => {
  const folder = mkdtempSync(join(tmpdir(), "bunkerd-notify-"));
  try {
    expect(await receive(join(folder, "notify.sock"), "READY=1\nSTATUS=ä")).toBe("READY=1\nSTATUS=ä");
    expect(await receive(`@bunkerd-test-${process.pid}`, "STOPPING=1")).toBe("STOPPING=1");
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test("nobody there is false, not an error", () => {
  expect(sendDatagram("/nonexistent/notify", "READY=1")).toBe(false);
  expect(sendDatagram("", "READY=1")).toBe(false);
  expect(sendDatagram("x".repeat(200), "READY=1")).toBe(false);
});

test("addresses are sockaddr_un", () => {
  expect([...(unixAddress("/a") ?? [])]).toEqual([1, 0, 47, 97, 0]);
  expect([...(unixAddress("@a") ?? [])]).toEqual([1, 0, 0, 97]);
});
