/** What the daemon does with its settings: metrics, sockets, plugins, its cgroup and OOM score, wrong values. */
import { afterEach, describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { messageOf } from "../../src/model/errors.ts";
import { argsFor, Bunkerd, endBunkerds, launch, newFolder, withClient } from "../support/bunkerd.ts";
import { freePort } from "../support/ports.ts";
import { run } from "../support/processes.ts";
import { makeCertificates } from "../support/registry-guards.ts";

afterEach(endBunkerds);

describe("settings", () => {
  test("metrics count what is called and committed, health follows the daemon", async () => {
    const port = await freePort();
    const daemon = await launch(
      `version = 2\n[metrics]\naddress = "127.0.0.1:${port}"\ngrpc_histogram = true`,
    ).ready();
    await withClient(daemon, async (client) => {
      await client
        .namespaces()
        .create({ $typeName: "containerd.services.namespaces.v1.Namespace", name: "a", labels: {} });
      await client
        .containers()
        .get({ namespace: "a" }, "none")
        .catch(() => undefined);
    });
    const text = await (await fetch(`http://127.0.0.1:${port}/v1/metrics`)).text();
    const series = (service: string, method: string): string =>
      `grpc_type="unary",grpc_service="containerd.services.${service}",grpc_method="${method}"`;
    expect(text).toContain(`grpc_server_started_total{${series("namespaces.v1.Namespaces", "Create")}} 1\n`);
    expect(text).toContain(
      `grpc_server_handled_total{${series("namespaces.v1.Namespaces", "Create")},grpc_code="OK"} 1\n`,
    );
    expect(text).toContain(
      `grpc_server_handled_total{${series("containers.v1.Containers", "Get")},grpc_code="NotFound"} 1\n`,
    );
    expect(text).toContain(
      `grpc_server_handling_seconds_count{${series("namespaces.v1.Namespaces", "Create")}} 1\n`,
    );
    expect(Number(/^bunkerd_bolt_commits_total (\d+)$/m.exec(text)?.[1])).toBeGreaterThan(0);
    expect(Number(/^bunkerd_bolt_fsync_seconds_count (\d+)$/m.exec(text)?.[1])).toBeGreaterThan(0);
    expect(await (await fetch(`http://127.0.0.1:${port}/healthz`)).text()).toBe("ok\n");
  });

  test("the debug socket tells the state", async () => {
    const folder = newFolder();
    const path = join(folder, "debug.sock");
    const daemon = await new Bunkerd(
      folder,
      argsFor(folder, `version = 2\n[debug]\naddress = "${path}"`),
    ).ready();
    const answer = await fetch("http://localhost/debug/vars", { unix: path });
    expect(await answer.json()).toMatchObject({ pid: daemon.pid });
    expect(await daemon.end()).toBe(0);
    expect(existsSync(path)).toBe(false);
  });

  test("a disabled plugin is not there, one that needs it says so", async () => {
    const daemon = await launch('version = 2\ndisabled_plugins = ["io.containerd.lease.v1.manager"]').ready();
    await withClient(daemon, async (client) => {
      const plugins = await client.introspection().plugins();
      expect(plugins.some(({ type }) => type === "io.containerd.lease.v1")).toBe(false);
      const leases = plugins.find(({ type, id }) => type === "io.containerd.grpc.v1" && id === "leases");
      expect(leases?.initErr?.message).toContain("leases: plugin: not found");
      // Not `rejects`: bun waits for it in a nested event loop, where its http2 client, whose callback we are in, stands still.
      const refused = await client
        .leases()
        .list({ namespace: "default" })
        .catch((error: unknown) => error);
      expect(messageOf(refused)).toContain("unknown service containerd.services.leases.v1.Leases");
    });
  });

  test.each([
    [
      "io.containerd.snapshotter.v1.none",
      "required plugin io.containerd.snapshotter.v1.none not included",
      "",
    ],
    [
      "io.containerd.server.v1.ttrpc",
      "load required plugin io.containerd.server.v1.ttrpc: no address: skip plugin",
      '[plugins."io.containerd.server.v1.ttrpc"]\naddress = ""',
    ],
  ])("required plugin %s stops the start", async (uri, message, settings) => {
    const daemon = launch(`version = 2\nrequired_plugins = ["${uri}"]\n${settings}`);
    expect(await daemon.exit()).toBe(1);
    expect(daemon.lines.at(-1)).toContain(message);
    expect(existsSync(daemon.socket)).toBe(false);
  });

  test("what is not built is said once a part, an unknown key with the nearest", async () => {
    const daemon = await launch(`version = 2
rooot = "/x"
[plugins."io.containerd.internal.v1.tracing"]
service_name = "a"
sampling_ratio = 0.5
`).ready();
    const warnings = daemon.lines.filter((line) => line.includes("level=warning"));
    expect(warnings.filter((line) => line.includes("tracing is not built yet")).length).toBe(1);
    expect(warnings.some((line) => line.includes('did you mean \\"root\\"'))).toBe(true);
  });

  test("what a daemon that was killed has left mounted is taken away, by no other than the next one", async () => {
    const folder = newFolder();
    const left = join(folder, "root/tmpmounts/bunkerd-mount-left");
    mkdirSync(left, { recursive: true });
    const isMounted = (): boolean => readFileSync("/proc/self/mountinfo", "utf8").includes(` ${left} `);
    const mountIt = (): Promise<unknown> => run(["mount", "-t", "tmpfs", "tmpfs", left]);
    await mountIt();
    expect(isMounted()).toBe(true);
    const daemon = await new Bunkerd(folder, argsFor(folder)).ready();
    expect(isMounted()).toBe(false);
    mkdirSync(left);
    await mountIt();
    expect(await new Bunkerd(folder, argsFor(folder)).exit()).toBe(1);
    expect(isMounted()).toBe(true);
    await run(["umount", left]);
    await daemon.end();
  });

  test("the OOM score is the daemon's own", async () => {
    const daemon = await launch("version = 2\noom_score = 321").ready();
    expect(readFileSync(`/proc/${daemon.pid}/oom_score_adj`, "utf8").trim()).toBe("321");
  });

  test("a cgroup of its own: on cgroup v1 it is made in every hierarchy, on v2 it must be there", async () => {
    const name = `bkt-${process.pid}/daemon`;
    const hierarchies = readFileSync("/proc/self/cgroup", "utf8")
      .split("\n")
      .flatMap((line) => /^\d+:([^:]*):/.exec(line)?.[1] ?? []);
    const daemon = launch(`version = 2\n[cgroup]\npath = "/${name}"`);
    if (!hierarchies.some((controllers) => controllers !== "")) return expect(await daemon.exit()).toBe(1);
    await daemon.ready();
    const own = readFileSync(`/proc/${daemon.pid}/cgroup`, "utf8").trim().split("\n");
    const entered = own.filter((line) => line.endsWith(`:/${name}`));
    await daemon.end();
    const removed = await run([
      "sh",
      "-c",
      `rmdir /sys/fs/cgroup/*/${name} && rmdir /sys/fs/cgroup/*/bkt-${process.pid}`,
    ]);
    expect(removed).toMatchObject({ code: 0, stderr: "" });
    expect(entered.length).toBeGreaterThan(0);
    expect(own.filter((line) => !entered.includes(line) && !/^\d+::/.test(line))).toEqual([]);
  });

  test.each([
    ['tcp_tls_cert = "/gone/c.pem"', "TLS needs both tls_cert and tls_key"],
    ['tcp_tls_ca = "/gone/ca.pem"', "TLS needs both tls_cert and tls_key"],
    ['tcp_tls_cert = "/gone/c.pem"\ntcp_tls_key = "/gone/c.key"', "tls_cert: ENOENT: no such file"],
  ])("half of a TLS setting does not become a port without it: %s", async (setting, complaint) => {
    const port = await freePort();
    const daemon = launch(`version = 2\n[grpc]\ntcp_address = "127.0.0.1:${port}"\n${setting}`);
    expect(await daemon.exit()).toBe(1);
    expect(daemon.lines.at(-1)).toContain(`grpc-tcp 127.0.0.1:${port}: ${complaint}`);
  });

  test("a TCP address serves the API by TLS to whom shows a certificate", async () => {
    const port = await freePort();
    const at = await makeCertificates(newFolder());
    const [cert, key, ca] = ["server.pem", "server.key", "ca.pem"].map((name) => join(at, name));
    const settings = `tcp_tls_cert = "${cert}"\ntcp_tls_key = "${key}"\ntcp_tls_ca = "${ca}"`;
    await launch(`version = 2\n[grpc]\ntcp_address = "127.0.0.1:${port}"\n${settings}`).ready();
    const url = `https://127.0.0.1:${port}/containerd.services.version.v1.Version/Version`;
    const words = [
      "curl",
      "-sS",
      "--cacert",
      ca ?? "",
      "-H",
      "content-type: application/json",
      "-d",
      "{}",
      url,
    ];
    const shown = ["--cert", join(at, "client.pem"), "--key", join(at, "client.key")];
    expect((await run([...words, ...shown])).stdout).toStartWith('{"version":');
    expect((await run(words)).code).not.toBe(0);
  });

  test("a TCP address serves the API", async () => {
    const port = await freePort();
    await launch(`version = 2\n[grpc]\ntcp_address = "127.0.0.1:${port}"`).ready();
    const url = `http://127.0.0.1:${port}/containerd.services.version.v1.Version/Version`;
    const answer = await fetch(url, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: "{}",
    });
    expect(await answer.json()).toMatchObject({ version: expect.any(String) });
  });

  test("a wrong value stops the start, in one line", async () => {
    const daemon = launch('version = 2\noom_score = "high"\nroot = 1');
    expect(await daemon.exit()).toBe(1);
    expect(daemon.lines).toEqual([
      `bunkerd: ${join(daemon.folder, "config.toml")}: oom_score: expected an integer, found string "high"`,
    ]);
  });
});
