/** The daemon's life: start, readiness, signals, stop, and what it says when it cannot start. */
import { afterEach, describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { create, toBinary } from "@bufbuild/protobuf";
import { AnySchema } from "@bufbuild/protobuf/wkt";
import { Client } from "../../src/client/client.ts";
import { messageOf } from "../../src/model/errors.ts";
import { argsFor, Bunkerd, endBunkerds, launch, newFolder, withClient } from "../support/bunkerd.ts";
import { bunkerdCommand, DATABASE } from "../support/daemons.ts";
import { linesOf, run, start } from "../support/processes.ts";

afterEach(endBunkerds);

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
