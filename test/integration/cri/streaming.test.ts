/** Exec, attach and port-forward as clients see them, from the CRI call to the last byte; the reference beside ours. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import type { PodSandboxConfig } from "#gen/runtime/v1/api_pb.ts";
import { selfSignedCertificate } from "../../../src/cri/streaming/certificate.ts";
import { until } from "../../support/containers.ts";
import {
  type CriDaemon,
  exited,
  logOf,
  podConfig,
  runContainer,
  script,
  startCri,
} from "../../support/cri.ts";
import { useHostNetwork } from "../../support/cri-tests.ts";
import { daemonKinds } from "../../support/daemons.ts";
import { removeFolder, temporaryFolder } from "../../support/processes.ts";
import {
  request,
  spdyClient,
  spdyCommand,
  spdyLines,
  textOf,
  webSocketClient,
} from "../../support/streaming.ts";

useHostNetwork();

const V4 = "v4.channel.k8s.io";
const sh = (text: string): string[] => ["/bin/sh", "-c", text];

describe.each(daemonKinds("containerd-2.1", "bunkerd"))("%s", (kind) => {
  let cri: CriDaemon;
  let config: PodSandboxConfig;
  let podSandboxId: string;
  let containerId: string;
  beforeAll(async () => {
    cri = await startCri(kind);
    config = podConfig(cri.daemon);
    ({ podSandboxId } = await cri.runtime.runPodSandbox({ config }));
    const server = "busybox nc -ll -p 8080 -e /bin/cat & while :; do sleep 1; done";
    containerId = await runContainer(cri, podSandboxId, config, script("serves", server));
  });
  afterAll(async () => {
    await cri[Symbol.asyncDispose]();
  });

  async function execUrl(cmd: string[], streams = { stdin: false, stdout: true, stderr: true, tty: false }) {
    const { url } = await cri.runtime.exec({ containerId, cmd, ...streams });
    return url;
  }

  test("ExecSync: outputs, exit code, time-out, what cannot start", async () => {
    const { runtime } = cri;
    const decode = (bytes: Uint8Array): string => Buffer.from(bytes).toString();
    const done = await runtime.execSync({ containerId, cmd: sh("echo out; echo err >&2; exit 3") });
    expect([decode(done.stdout), decode(done.stderr), done.exitCode]).toEqual(["out\n", "err\n", 3]);
    const late = await runtime
      .execSync({ containerId, cmd: ["/bin/sleep", "100"], timeout: 1n })
      .catch(String);
    expect(late).toContain(
      "[deadline_exceeded] failed to exec in container: timeout 1s exceeded: context deadline exceeded",
    );
    const missing = await runtime.execSync({ containerId, cmd: ["/bin/missing"] }).catch(String);
    expect(missing).toMatch(
      /\[unknown\] failed to exec in container: failed to start exec "\w{64}": .*\/bin\/missing/,
    );
    const nobody = await runtime.execSync({ containerId: "nobody", cmd: ["/bin/true"] }).catch(String);
    expect(nobody).toMatch(/\[not_found\].*"nobody"/);
  });

  test("SPDY: outputs and exit code, by each version", async () => {
    for (const [protocol, status] of [
      [
        V4,
        {
          status: "Failure",
          reason: "NonZeroExitCode",
          details: { causes: [{ reason: "ExitCode", message: "7" }] },
        },
      ],
      ["v3.channel.k8s.io", "command terminated with non-zero exit code"],
      ["v2.channel.k8s.io", "exit code 7"],
    ] as const) {
      const command = await spdyCommand(
        await execUrl(sh("echo out; echo err >&2; exit 7")),
        protocol,
        "stdout",
        "stderr",
      );
      const { stdout, stderr, error } = await command.finish();
      expect({ stdout, stderr }).toEqual({ stdout: "out\n", stderr: "err\n" });
      if (typeof status === "string") expect(error).toContain(status);
      else expect(JSON.parse(error ?? "")).toMatchObject(status);
    }
    const fine = await spdyCommand(await execUrl(sh("exit 0")), V4, "stdout", "stderr");
    expect(JSON.parse((await fine.finish())["error"] ?? "")).toMatchObject({ status: "Success" });
    const missing = await spdyCommand(await execUrl(["/bin/missing"]), V4, "stdout", "stderr");
    const failure = JSON.parse((await missing.finish())["error"] ?? "") as { message: string };
    expect(failure).toMatchObject({ status: "Failure", reason: "InternalError", code: 500 });
    expect(failure.message).toStartWith(
      "Internal error occurred: error executing command in container: failed to exec in container: failed to start exec",
    );
  });

  test("SPDY: stdin to its end, much of it, back to the client", async () => {
    const streams = { stdin: true, stdout: true, stderr: false, tty: false };
    const sent = Buffer.from("0123456789abcdef".repeat(200_000));
    // containerd may end the connection before all of the output is on its way.
    for (let tries = kind === "bunkerd" ? 1 : 10; tries > 0; tries--) {
      const command = await spdyCommand(await execUrl(["/bin/cat"], streams), V4, "stdin", "stdout");
      const finished = command.finish();
      await command.streams["stdin"]?.write(sent);
      command.streams["stdin"]?.end();
      const { stdout, error } = await finished;
      const all = Buffer.from(stdout ?? "");
      if (all.length < sent.length && tries > 1) continue;
      expect({ length: all.length, equal: all.equals(sent) }).toEqual({ length: sent.length, equal: true });
      expect(JSON.parse(error ?? "")).toMatchObject({ status: "Success" });
      return;
    }
  });

  test("SPDY: a terminal follows the client's size", async () => {
    const streams = { stdin: true, stdout: true, stderr: false, tty: true };
    const wait =
      "while [ \"$(busybox stty size)\" != '33 77' ]; do busybox usleep 50000; done; echo sized $TERM; read x; echo got $x";
    const command = await spdyCommand(await execUrl(sh(wait), streams), V4, "stdin", "stdout", "resize");
    await command.streams["resize"]?.write(Buffer.from('{"Width":10,"Height":10}\n{"Width":77,'));
    await command.streams["resize"]?.write(Buffer.from('"Height":33}\n'));
    await command.streams["stdin"]?.write(Buffer.from("typed\n"));
    const { stdout } = await command.finish();
    expect(stdout).toContain("sized xterm\r\n");
    expect(stdout).toContain("got typed\r\n");
  });

  test("WebSocket: outputs and exit code, by each version", async () => {
    const ours = kind === "bunkerd" ? ["v5.channel.k8s.io"] : [];
    for (const protocol of [
      V4,
      "v4.base64.channel.k8s.io",
      "channel.k8s.io",
      "base64.channel.k8s.io",
      ...ours,
    ]) {
      const client = await webSocketClient(await execUrl(sh("echo out; echo err >&2; exit 7")), protocol);
      expect(client.protocol).toBe(protocol);
      const texts = ["", "", "", "", ""];
      for await (const [channel, bytes] of client.messages) texts[channel] += bytes.toString();
      expect(texts.slice(0, 3)).toEqual(["", "out\n", "err\n"]);
      expect(texts[3]).toContain(/^v\d/.test(protocol) ? '"reason":"ExitCode","message":"7"' : "exit code 7");
    }
  });

  test("attach: output that comes later, stdin that is given once", async () => {
    const cat = script("cat", "cat; echo over", { stdin: true, stdinOnce: true });
    const id = await runContainer(cri, podSandboxId, config, cat);
    const { url } = await cri.runtime.attach({ containerId: id, stdin: true, stdout: true, stderr: true });
    const command = await spdyCommand(url, V4, "stdin", "stdout", "stderr");
    await command.streams["stdin"]?.write(Buffer.from("attached\n"));
    command.streams["stdin"]?.end();
    const { stdout, error } = await command.finish();
    expect(stdout).toBe("attached\nover\n");
    expect(JSON.parse(error ?? "")).toMatchObject({ status: "Success" });
    await exited(cri, id);
    expect(logOf(config, cat)).toBe("attached\nover\n");
    const ended = await cri.runtime.attach({ containerId: id, stdout: true }).catch(String);
    expect(ended).toMatch(/container is in CONTAINER_EXITED state/);
  });

  async function forwards() {
    const { url } = await cri.runtime.portForward({ podSandboxId, port: [8080] });
    const { connection } = await spdyClient(url, "portforward.k8s.io");
    let count = 0;
    return {
      connection,
      async open(port: number) {
        const requestid = String(count++);
        const headers = { port: String(port), requestid };
        const error = await connection.open(new Map(Object.entries({ ...headers, streamtype: "error" })));
        const data = await connection.open(new Map(Object.entries({ ...headers, streamtype: "data" })));
        error.end();
        return { data, error };
      },
    };
  }

  test("port-forward: to the pod's port and back; a port where nobody listens", async () => {
    const forward = await forwards();
    const echoed = async (text: string, early: boolean): Promise<string | undefined> => {
      const { data } = await forward.open(8080);
      await data.write(Buffer.from(text)).catch(() => undefined);
      if (early) data.end();
      for await (const bytes of data.bytes) {
        data.end();
        return Buffer.from(bytes).toString();
      }
      return undefined;
    };
    // The container may still be on its way to listen.
    await until("the container listens", () => echoed("first", false));
    for (let round = 0; round < 5; round++)
      expect(await echoed(`round ${round}`, kind === "bunkerd")).toBe(`round ${round}`);
    const { error } = await forward.open(81);
    expect(await textOf(error)).toMatch(
      /^error forwarding port 81 to pod \w+, uid : failed to execute portforward in network namespace "\/\S+": failed to connect to localhost:81 inside namespace "[^"]+", IPv4: .*refused/,
    );
    forward.connection.close();
  });

  test("port-forward by WebSocket channels", async () => {
    const { url } = await cri.runtime.portForward({ podSandboxId, port: [8080] });
    const client = await webSocketClient(url, V4);
    const seen: [number, string][] = [];
    for await (const [channel, bytes] of client.messages) {
      seen.push([channel, bytes.toString("latin1")]);
      if (seen.length === 2) client.send(0, "by channel");
      if (seen.length === 3) client.close();
    }
    expect(seen).toEqual([
      [0, "\x90\x1f"],
      [1, "\x90\x1f"],
      [0, "by channel"],
    ]);
  });

  test("a token opens once, and nothing else does", async () => {
    const url = await execUrl(sh("exit 0"));
    const answers: string[] = [];
    const ask = async (path: string, lines: readonly string[]): Promise<void> => {
      const { head, socket } = await request(path, lines);
      answers.push(head.split(" ")[1] ?? "");
      socket.destroy();
    };
    await ask(url.replace("/exec/", "/attach/"), spdyLines(V4));
    await ask(url, spdyLines(V4));
    await ask(url.replace(/[^/]+$/, "AAAAAAAA"), spdyLines(V4));
    await ask(await execUrl(sh("exit 0")), spdyLines());
    await ask(await execUrl(sh("exit 0")), spdyLines("v9.channel.k8s.io"));
    await ask(await execUrl(sh("exit 0")), ["X-Stream-Protocol-Version: v4.channel.k8s.io"]);
    expect(answers).toEqual(["404", "404", "404", "400", "403", "400"]);
  });

  test("what cannot be asked for", async () => {
    const { runtime } = cri;
    const words = await Promise.all([
      runtime.exec({ containerId, cmd: ["x"] }).catch(String),
      runtime.exec({ containerId, cmd: ["x"], tty: true, stderr: true }).catch(String),
      runtime.attach({ containerId }).catch(String),
      runtime.exec({ containerId: "nobody", cmd: ["x"], stdout: true }).catch(String),
      runtime.attach({ containerId: "nobody", stdout: true }).catch(String),
      runtime.portForward({ podSandboxId: "nobody" }).catch(String),
    ]);
    expect(words).toEqual([
      "ConnectError: [invalid_argument] one of stdin, stdout, or stderr must be set",
      "ConnectError: [invalid_argument] tty and stderr cannot both be true",
      "ConnectError: [invalid_argument] one of stdin, stdout, and stderr must be set",
      expect.stringMatching(/\[not_found\] failed to find container "nobody" in store: .*not found/),
      expect.stringMatching(/\[not_found\] failed to find container in store: .*not found/),
      expect.stringMatching(/\[not_found\] failed to find sandbox "nobody": .*not found/),
    ]);
  });
});

test.each(daemonKinds("containerd-2.1", "bunkerd"))(
  "%s, settings: a port, and key and certificate",
  async (kind) => {
    const folder = temporaryFolder();
    const { cert, key } = selfSignedCertificate();
    const [certFile, keyFile] = [join(folder, "cert.pem"), join(folder, "key.pem")];
    writeFileSync(certFile, cert);
    writeFileSync(keyFile, key);
    const plugin = [
      'stream_server_port = "10443"',
      "enable_tls_streaming = true",
      `x509_key_pair_streaming = { tls_cert_file = "${certFile}", tls_key_file = "${keyFile}" }`,
    ].join("\n");
    await using cri = await startCri(kind, { plugin });
    const config = podConfig(cri.daemon);
    const { podSandboxId } = await cri.runtime.runPodSandbox({ config });
    const containerId = await runContainer(cri, podSandboxId, config, script("sleeps", "sleep 1000"));
    const { url } = await cri.runtime.exec({ containerId, cmd: sh("echo safe"), stdout: true });
    expect(url).toStartWith("https://127.0.0.1:10443/exec/");
    const command = await spdyCommand(url, V4, "stdout");
    expect((await command.finish())["stdout"]).toBe("safe\n");
    removeFolder(folder);
  },
);
