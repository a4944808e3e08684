/** The daemon's life: start, readiness, signals, settings, stop, and what it says when it cannot start. */
import { afterEach, describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { create, toBinary } from "@bufbuild/protobuf";
import { AnySchema } from "@bufbuild/protobuf/wkt";
import { Client } from "../../src/client/client.ts";
import { messageOf } from "../../src/model/errors.ts";
import { bunkerdCommand, DATABASE } from "../support/daemons.ts";
import { linesOf, removeFolder, run, start, temporaryFolder } from "../support/processes.ts";
import { makeCertificates } from "../support/registry-guards.ts";

const folders: string[] = [];
const started: Bunkerd[] = [];

afterEach(async () => {
  for (const daemon of started.splice(0)) await daemon.kill();
  for (const folder of folders.splice(0)) removeFolder(folder);
});

function newFolder(): string {
  const folder = temporaryFolder();
  folders.push(folder);
  return folder;
}

/** A bunkerd whose log is read as it comes. */
class Bunkerd {
  readonly folder: string;
  readonly lines: string[] = [];
  readonly #child: ReturnType<typeof spawn>;
  readonly #ended: Promise<void>;
  #waiting: (() => void)[] = [];
  #over = false;

  constructor(folder: string, args: readonly string[], env: Readonly<Record<string, string>> = {}) {
    this.folder = folder;
    this.#child = spawn(folder, args, env);
    this.#ended = this.#read();
    started.push(this);
  }

  get pid(): number {
    return this.#child.pid;
  }

  get socket(): string {
    return join(this.folder, "d.sock");
  }

  /** The first line from `from` on that matches. @throws with the log if the daemon ends before */
  async line(pattern: RegExp, from = 0): Promise<string> {
    for (;;) {
      const found = this.lines.slice(from).find((line) => pattern.test(line));
      if (found !== undefined) return found;
      if (this.#over) throw new Error(`no line ${pattern} in:\n${this.lines.join("\n")}`);
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
  }

  async ready(): Promise<this> {
    await this.line(/successfully booted/);
    return this;
  }

  signal(name: NodeJS.Signals): void {
    this.#child.kill(name);
  }

  async end(name: NodeJS.Signals = "SIGTERM"): Promise<number> {
    this.#child.kill(name);
    return await this.exit();
  }

  /** The exit code, once the log is read to its end. */
  async exit(): Promise<number> {
    await this.#ended;
    return await this.#child.exited;
  }

  async kill(): Promise<void> {
    this.#child.kill("SIGKILL");
    await this.exit();
  }

  async #read(): Promise<void> {
    for await (const line of linesOf(this.#child.stderr)) {
      this.lines.push(line);
      this.#wake();
    }
    this.#over = true;
    this.#wake();
  }

  #wake(): void {
    for (const resolve of this.#waiting.splice(0)) resolve();
  }
}

function spawn(folder: string, args: readonly string[], env: Readonly<Record<string, string>>) {
  return start([...bunkerdCommand(), ...args], {
    cwd: folder,
    env: { ...process.env, ...env },
    stdin: "ignore",
    stdout: "ignore",
    stderr: "pipe",
  });
}

/** Arguments for a daemon that lives in `folder`, and its config file with these lines. */
function argsFor(folder: string, config = "version = 2", root = join(folder, "root")): string[] {
  const file = join(folder, "config.toml");
  writeFileSync(file, `${config}\n`);
  return [
    "--config",
    file,
    "--root",
    root,
    "--state",
    join(folder, "state"),
    "--address",
    join(folder, "d.sock"),
  ];
}

function launch(
  config?: string,
  env?: Readonly<Record<string, string>>,
  more: readonly string[] = [],
): Bunkerd {
  const folder = newFolder();
  return new Bunkerd(folder, [...argsFor(folder, config), ...more], env);
}

async function withClient<T>(daemon: Bunkerd, use: (client: Client) => Promise<T>): Promise<T> {
  const client = await Client.connect(daemon.socket);
  try {
    return await use(client);
  } finally {
    client.close();
  }
}

/** A TCP port that was free a moment ago. */
function freePort(): Promise<number> {
  return new Promise((resolve) => {
    const server = createServer().listen(0, "127.0.0.1", () => {
      const address = server.address();
      server.close(() => resolve(typeof address === "object" && address !== null ? address.port : 0));
    });
  });
}

describe("start and stop", () => {
  test("folders, socket and database as containerd's; SIGTERM removes the socket and exits 0", async () => {
    const daemon = await launch().ready();
    const root = join(daemon.folder, "root");
    expect(statSync(root).mode & 0o777).toBe(0o700);
    expect(statSync(join(daemon.folder, "state")).mode & 0o777).toBe(0o711);
    expect(statSync(daemon.socket).mode & 0o777).toBe(0o660);
    expect(existsSync(join(root, DATABASE))).toBe(true);
    await withClient(daemon, async (client) => expect(await client.namespaces().list()).toEqual([]));
    expect(await daemon.end()).toBe(0);
    expect(existsSync(daemon.socket)).toBe(false);
    expect(daemon.lines.at(-1)).toContain("msg=stopped");
  });

  test("an idle subscriber hears that the daemon goes, and does not hold it", async () => {
    const daemon = await launch().ready();
    await withClient(daemon, async (client) => {
      const events = client.events().subscribe();
      await client
        .namespaces()
        .create({ $typeName: "containerd.services.namespaces.v1.Namespace", name: "a", labels: {} });
      expect((await events.next()).value?.topic).toBe("/namespaces/create");
      const rest = events.next();
      rest.catch(() => undefined);
      expect(await daemon.end()).toBe(0);
      const end = await rest.catch((error: unknown) => error);
      expect(messageOf(end)).toMatch(/closed|unavailable/i);
    });
  });

  test("ttrpc listens behind the gRPC address, or at its own, and goes with the daemon", async () => {
    const daemon = await launch().ready();
    expect(statSync(`${daemon.socket}.ttrpc`).mode & 0o777).toBe(0o660);
    expect(await daemon.end()).toBe(0);
    expect(existsSync(`${daemon.socket}.ttrpc`)).toBe(false);
    const own = join(newFolder(), "own.sock");
    const other = await launch(
      `version = 2\n[plugins."io.containerd.server.v1.ttrpc"]\naddress = "${own}"`,
    ).ready();
    expect(statSync(own).isSocket()).toBe(true);
    expect(existsSync(`${other.socket}.ttrpc`)).toBe(false);
  });

  test("SIGINT is SIGTERM", async () => {
    expect(await (await launch().ready()).end("SIGINT")).toBe(0);
  });

  test("what was written is there after SIGKILL", async () => {
    const first = await launch().ready();
    await withClient(first, (client) =>
      client
        .namespaces()
        .create({ $typeName: "containerd.services.namespaces.v1.Namespace", name: "kept", labels: {} }),
    );
    await first.kill();
    const second = await new Bunkerd(first.folder, argsFor(first.folder)).ready();
    await withClient(second, async (client) => {
      expect((await client.namespaces().list()).map(({ name }) => name)).toEqual(["kept"]);
    });
  });

  test.each([
    ["root", DATABASE],
    ["state", "io.containerd.mount-manager.v1.bolt/mounts.db"],
  ])("a second daemon on the same %s says in one line who holds the lock", async (part, database) => {
    const first = await launch().ready();
    const folder = newFolder();
    const args = argsFor(folder).map((arg) => (arg === join(folder, part) ? join(first.folder, part) : arg));
    const second = new Bunkerd(folder, args);
    expect(await second.exit()).toBe(1);
    const told = second.lines.filter((line) => !line.startsWith("time="));
    expect(told.length).toBe(1);
    expect(told[0]).toStartWith("bunkerd: ");
    expect(told[0]).toContain(join(first.folder, part, database));
    expect(told[0]).toContain(String(first.pid));
    await withClient(first, (client) => client.version());
  });

  test("the lock is waited for as long as the configuration says", async () => {
    const first = await launch().ready();
    const folder = newFolder();
    const config = 'version = 2\n[timeouts]\n"io.containerd.timeout.bolt.open" = "60s"';
    const second = new Bunkerd(folder, argsFor(folder, config, join(first.folder, "root")));
    await second.line(/starting bunkerd/);
    expect(await first.end()).toBe(0);
    await second.ready();
  });

  test("an address that is served stays with its owner", async () => {
    const first = await launch().ready();
    const folder = newFolder();
    const own = `version = 2\n[plugins."io.containerd.server.v1.ttrpc"]\naddress = "${folder}/t.sock"`;
    const args = argsFor(folder, own).map((arg) => (arg === join(folder, "d.sock") ? first.socket : arg));
    const second = new Bunkerd(folder, args);
    expect(await second.exit()).toBe(1);
    expect(second.lines.at(-1)).toContain(`listen on ${first.socket}: address already in use`);
    await withClient(first, (client) => client.version());
  });

  test.each([
    ["root", (folder: string) => join(folder, "file", "root")],
    ["state", (folder: string) => join(folder, "file")],
  ])("%s that cannot be a folder is named", async (name, pathOf) => {
    const folder = newFolder();
    writeFileSync(join(folder, "file"), "");
    const args = [...argsFor(folder), `--${name}`, pathOf(folder)];
    const daemon = new Bunkerd(folder, args);
    expect(await daemon.exit()).toBe(1);
    expect(daemon.lines.at(-1)).toBe(`bunkerd: ${name} directory ${pathOf(folder)}: not a directory`);
  });

  test("a database that is none is named and left alone", async () => {
    const folder = newFolder();
    const path = join(folder, "root", DATABASE);
    mkdirSync(join(path, ".."), { recursive: true });
    writeFileSync(path, "x".repeat(40_000));
    const daemon = new Bunkerd(folder, argsFor(folder));
    expect(await daemon.exit()).toBe(1);
    expect(daemon.lines.at(-1)).toStartWith("bunkerd: ");
    expect(daemon.lines.at(-1)).toContain(path);
    expect(readFileSync(path, "utf8")).toBe("x".repeat(40_000));
  });
});

describe("signals", () => {
  test("SIGHUP takes over the log's level and format; a wrong file changes nothing", async () => {
    const folder = newFolder();
    const args = argsFor(folder, 'version = 2\n[debug]\nlevel = "info"');
    const daemon = await new Bunkerd(folder, args).ready();
    argsFor(folder, 'version = 2\n[debug]\nlevel = "debug"\nformat = "json"');
    daemon.signal("SIGHUP");
    const line = await daemon.line(/reloaded configuration/);
    expect(JSON.parse(line)).toMatchObject({ level: "info", "fields.level": "debug" });
    argsFor(folder, 'version = 2\n[debug]\nlevel = "loud"');
    daemon.signal("SIGHUP");
    expect(JSON.parse(await daemon.line(/reload of the configuration failed/)).error).toContain(
      'unknown value "loud"',
    );
    daemon.signal("SIGTERM");
    // A debug line: the level of the good file is still in force.
    expect(await daemon.line(/received signal/)).toMatch(/"level":"debug"/);
    expect(await daemon.exit()).toBe(0);
  });

  test("the flag wins over a reloaded file", async () => {
    const folder = newFolder();
    const daemon = await new Bunkerd(folder, [...argsFor(folder), "--log-level", "info"]).ready();
    argsFor(folder, 'version = 2\n[debug]\nlevel = "error"');
    daemon.signal("SIGHUP");
    expect(await daemon.line(/reloaded configuration/)).toContain("fields.level=info");
  });

  test("SIGUSR1 logs the state and the daemon goes on", async () => {
    const daemon = await launch().ready();
    daemon.signal("SIGUSR1");
    const state = JSON.parse(
      JSON.parse(/ state=(".*")$/.exec(await daemon.line(/msg=state/))?.[1] ?? "null"),
    );
    expect(state).toMatchObject({ pid: daemon.pid, openCalls: 0, root: join(daemon.folder, "root") });
    await withClient(daemon, (client) => client.version());
  });
});

const NOTIFY_RECEIVER = `
import socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(sys.argv[1])
print("bound", flush=True)
while True: print(repr(s.recv(4096).decode()), flush=True)
`;

const python = Bun.which("python3");
if (python === null) process.stdout.write("skipped: sd_notify: no python3 to receive with\n");

test.skipIf(python === null)("the service manager hears of ready, reload and stop", async () => {
  const folder = newFolder();
  const path = join(folder, "notify.sock");
  const receiver = start(["python3", "-c", NOTIFY_RECEIVER, path], { stdout: "pipe", stderr: "inherit" });
  try {
    const told = linesOf(receiver.stdout);
    const next = async (): Promise<string> => (await told.next()).value ?? "";
    expect(await next()).toBe("bound");
    const daemon = new Bunkerd(folder, argsFor(folder), { NOTIFY_SOCKET: path });
    expect(await next()).toBe("'READY=1'");
    await withClient(daemon, (client) => client.version());
    daemon.signal("SIGHUP");
    expect(await next()).toMatch(/^'RELOADING=1\\nMONOTONIC_USEC=\d+'$/);
    expect(await next()).toBe("'READY=1'");
    expect(await daemon.end()).toBe(0);
    expect(await next()).toBe("'STOPPING=1'");
  } finally {
    receiver.kill("SIGKILL");
    await receiver.exited;
  }
});

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

test("an event that a shim publishes reaches the subscribers", async () => {
  const daemon = await launch().ready();
  const any = create(AnySchema, {
    typeUrl: "containerd.events.TaskOOM",
    value: new Uint8Array([10, 1, 120]),
  });
  await withClient(daemon, async (client) => {
    const events = client.events().subscribe();
    const answered = events.next();
    // Subscribed for certain once a later call on the same connection is answered.
    await client.version();
    const publish = [...bunkerdCommand(), "--address", daemon.socket, "publish", "--topic"];
    const sent = await run([...publish, "/tasks/oom", "--namespace", "shims"], {
      stdin: toBinary(AnySchema, any),
    });
    expect(sent).toEqual({ code: 0, stdout: "", stderr: "" });
    expect((await answered).value).toMatchObject({
      namespace: "shims",
      topic: "/tasks/oom",
      event: { typeUrl: any.typeUrl },
    });
    const bad = await run([...publish, "no-slash", "--namespace", "shims"], {
      stdin: toBinary(AnySchema, any),
    });
    expect(bad.code).toBe(1);
    expect(bad.stderr).toContain('envelope topic "no-slash": must start with');
    const garbage = await run([...publish, "/x", "--namespace", "shims"], {
      stdin: new Uint8Array([255, 255]),
    });
    expect(garbage.stderr).toStartWith("bunkerd: event on stdin is no google.protobuf.Any");
  });
  const nobody = [...bunkerdCommand(), "-a", join(daemon.folder, "none.sock"), "publish", "--topic", "/x"];
  expect(await run([...nobody, "--namespace", "a"], { stdin: "" })).toMatchObject({ code: 1 });
});

test("a daemon that has fallen idle gives back memory, and answers as before", async () => {
  const daemon = await launch("version = 2", {}, ["--log-level", "debug"]).ready();
  await withClient(daemon, (client) => client.version());
  const line = await daemon.line(/released memory/);
  expect(Number(/droppedKb=(\d+)/.exec(line)?.[1])).toBeGreaterThan(1024);
  await withClient(daemon, (client) => client.version());
});

test("a log whose reader is gone does not stop the daemon", async () => {
  const folder = newFolder();
  const child = start(
    ["bash", "-c", 'exec "$@" 2> >(exec true)', "bash", ...bunkerdCommand(), ...argsFor(folder)],
    {
      stdin: "ignore",
      stdout: "ignore",
      stderr: "ignore",
    },
  );
  try {
    const socket = join(folder, "d.sock");
    while (!existsSync(socket)) await Bun.sleep(5);
    for (let round = 0; round < 20; round++) child.kill("SIGUSR1");
    const client = await Client.connect(socket);
    await client.version();
    client.close();
    child.kill("SIGTERM");
    expect(await child.exited).toBe(0);
  } finally {
    child.kill("SIGKILL");
    await child.exited;
  }
});
