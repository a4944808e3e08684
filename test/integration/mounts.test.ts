/** The Mounts service with real loop devices and file systems: what is activated, kept, collected, and what a crash leaves. */
import { afterAll, describe, expect, test } from "bun:test";
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { basename, join } from "node:path";
import { Code } from "@connectrpc/connect";
import { Containers } from "#gen/containerd/services/containers/v1/containers_pb.ts";
import { Leases } from "#gen/containerd/services/leases/v1/leases_pb.ts";
import { Mounts } from "#gen/containerd/services/mounts/v1/mounts_pb.ts";
import type { ActivationInfo } from "#gen/containerd/types/mount_pb.ts";
import { unmount } from "../../src/linux/mount.ts";
import { mountNamed } from "../../src/linux/mount-options.ts";
import { mountPointsBelow, unmountBelow } from "../../src/linux/mountinfo.ts";
import { COLLECTION_WHEN_ASKED, type Daemon, startDaemon } from "../support/daemons.ts";
import { checkDatabase } from "../support/database.ts";
import { connectGrpc, errorOf, inNamespace } from "../support/grpc.ts";

const options = inNamespace("mounts");
const bind = (source: string) => ({ type: "bind", source, options: ["rbind"] });
const started: Daemon[] = [];

afterAll(async () => {
  for (const daemon of started) {
    await daemon.kill();
    unmountBelow(daemon.folder);
    await daemon.stop();
  }
});

async function begin(folder?: string): Promise<Daemon> {
  const daemon = await startDaemon("bunkerd", {
    config: COLLECTION_WHEN_ASKED,
    ...(folder === undefined ? {} : { folder }),
  });
  if (folder === undefined) started.push(daemon);
  return daemon;
}

const stateOf = ({ folder }: Daemon) => join(folder, "state/io.containerd.mount-manager.v1.bolt");
const mountsOf = ({ folder }: Daemon): string[] => mountPointsBelow(folder);

/** Loop devices whose file lies below the daemon's folder, by sysfs. */
function loopsOf({ folder }: Daemon): string[] {
  return readdirSync("/sys/block").filter((name) => {
    const file = join("/sys/block", name, "loop/backing_file");
    try {
      return readFileSync(file, "utf8").startsWith(folder);
    } catch {
      return false;
    }
  });
}

function leftIn(daemon: Daemon): string[] {
  return [...mountsOf(daemon), ...loopsOf(daemon), ...readdirSync(join(stateOf(daemon), "t"))];
}

/** An image with a file system, mounted, with folders made in it for an overlay that the caller mounts. */
function layered(daemon: Daemon, lower: string) {
  const mkfs = (setting: string): string => `X-containerd.mkfs.${setting}`;
  const mkdir = (name: string): string => `X-containerd.mkdir.path={{ mount 1 }}/${name}`;
  return [
    {
      type: "mkfs/loop",
      source: join(daemon.root, "disk.img"),
      options: [mkfs("size=16MiB"), mkfs("fs=ext4"), mkfs("uuid=6b0c2a0e-0d5f-4a4e-9f4d-0b8f8c5d7e21")],
    },
    { type: "format/ext4", source: "{{ mount 0 }}", options: [] },
    {
      type: "format/mkdir/overlay",
      source: "overlay",
      options: [
        mkdir("upper:0755:7:8"),
        mkdir("work"),
        `lowerdir=${lower}`,
        "upperdir={{ mount 1 }}/upper",
        "workdir={{ mount 1 }}/work",
      ],
    },
  ];
}

const shown = ({ name, active, system, labels }: ActivationInfo) => ({
  name,
  active: active.map(({ mount, mountPoint }) => [mount?.type, basename(mountPoint)]),
  system: system.map(({ type, source }) => [type, source]),
  labels,
});

describe("what is activated", () => {
  test("a file is made a file system, mounted, and an overlay of it is left to the caller; restarts keep it", async () => {
    let daemon = await begin();
    const lower = join(daemon.folder, "lower");
    mkdirSync(lower);
    writeFileSync(join(lower, "from-below"), "");
    {
      await using connection = connectGrpc(daemon.socket);
      const client = connection.client(Mounts);
      const request = { name: "disk", mounts: layered(daemon, lower), labels: { a: "b" } };
      const { info } = await client.activate(request, options);
      if (info === undefined) throw new Error("no answer");
      expect(info.active.map(({ mount }) => mount?.type)).toEqual(["loop", "ext4"]);
      expect(info.active[0]?.mount).toMatchObject({ source: join(daemon.root, "disk.img"), options: [] });
      const inside = info.active[1]?.mountPoint ?? "";
      const [overlay, ...others] = info.system;
      if (overlay === undefined || others.length > 0) throw new Error("one mount is left to the caller");
      expect({ type: overlay.type, options: overlay.options }).toEqual({
        type: "overlay",
        options: [`lowerdir=${lower}`, `upperdir=${inside}/upper`, `workdir=${inside}/work`],
      });
      const point = join(daemon.folder, "merged");
      mkdirSync(point);
      mountNamed(overlay, point);
      writeFileSync(join(point, "written"), "text");
      expect(readdirSync(point).sort()).toEqual(["from-below", "written"]);
      unmount(point);
      expect(readFileSync(join(inside, "upper/written"), "utf8")).toBe("text");
      expect(loopsOf(daemon)).toHaveLength(1);
      expect((await errorOf(client.activate(request, options))).message).toBe('mount "disk": already exists');
    }
    for (const end of ["halt", "kill"] as const) {
      await daemon[end]();
      daemon = await begin(daemon.folder);
      await using connection = connectGrpc(daemon.socket);
      const { info } = await connection.client(Mounts).info({ name: "disk" }, options);
      expect(shown(info as ActivationInfo)).toEqual({
        name: "disk",
        active: [
          ["loop", "2"],
          ["ext4", "1"],
        ],
        system: [["overlay", "overlay"]],
        labels: { a: "b" },
      });
      expect(mountsOf(daemon)).toHaveLength(1);
    }
    {
      await using connection = connectGrpc(daemon.socket);
      const client = connection.client(Mounts);
      await client.deactivate({ name: "disk" }, options);
      expect(leftIn(daemon)).toEqual([]);
      const again = await client.activate({ name: "disk", mounts: layered(daemon, lower) }, options);
      const inside = again.info?.active[1]?.mountPoint ?? "";
      expect(readFileSync(join(inside, "upper/written"), "utf8")).toBe("text");
      await client.deactivate({ name: "disk" }, options);
    }
    expect(leftIn(daemon)).toEqual([]);
    await daemon.halt();
    const file = join(stateOf(daemon), "mounts.db");
    expect(await checkDatabase(file)).toMatchObject({ code: 0 });
  });

  test("temporary mounts are all made, and answered as one; update, list, filters, namespaces", async () => {
    const daemon = await begin();
    await using connection = connectGrpc(daemon.socket);
    const client = connection.client(Mounts);
    const source = join(daemon.folder, "source");
    mkdirSync(source);
    const labels = { kind: "temporary" };
    const request = { name: "t", mounts: [bind(source)], temporary: true, labels };
    const { info } = await client.activate(request, options);
    const point = info?.active[0]?.mountPoint ?? "";
    expect(info?.system).toMatchObject([{ type: "bind", source: point, options: ["rbind"] }]);
    writeFileSync(join(source, "seen"), "");
    expect(readdirSync(point)).toEqual(["seen"]);

    const paths = ["labels.more"];
    const change = { info: { name: "t", labels: { more: "x" } }, updateMask: { paths } };
    const updated = await client.update(change, options);
    expect(updated.info?.labels).toEqual({ kind: "temporary", more: "x" });
    expect(await errorOf(client.update({ ...change, updateMask: { paths: ["active"] } }, options))).toEqual({
      code: Code.InvalidArgument,
      message: 'cannot update "active" field on mount "t": invalid argument',
    });
    const names = async (filters: string[], namespace = "mounts"): Promise<string[]> => {
      const found: string[] = [];
      for await (const message of client.list({ filters }, inNamespace(namespace)))
        found.push(message.info?.name ?? "");
      return found;
    };
    expect(await names([])).toEqual(["t"]);
    expect(await names(["name==u", "labels.more==y"])).toEqual([]);
    expect(await names(["labels.more==x"])).toEqual(["t"]);
    expect(await names([], "other")).toEqual([]);
    expect(await errorOf(client.info({ name: "t" }, inNamespace("other")))).toEqual({
      code: Code.NotFound,
      message: 'mount "t" not found',
    });
    expect(await errorOf(client.deactivate({ name: "t" }, inNamespace("other")))).toEqual({
      code: Code.NotFound,
      message: 'missing namespace "other" bucket: not found',
    });
    await client.deactivate({ name: "t" }, options);
    expect((await errorOf(client.deactivate({ name: "t" }, options))).message).toBe(
      'missing mount "t" bucket: not found',
    );
    expect(leftIn(daemon)).toEqual([]);
  });

  test("what fails half way leaves nothing, and says what it was; nothing is made outside the roots", async () => {
    const daemon = await begin();
    await using connection = connectGrpc(daemon.socket);
    const client = connection.client(Mounts);
    const source = join(daemon.root, "source");
    mkdirSync(source);
    symlinkSync(daemon.folder, join(source, "out"));
    const attempt = (...mounts: { type: string; source: string; target?: string; options?: string[] }[]) =>
      errorOf(client.activate({ name: "x", mounts }, options));
    const made = (path: string) => ({
      type: "mkdir/bind",
      source,
      options: ["rbind", `X-containerd.mkdir.path=${path}`],
    });
    expect((await attempt(bind(source))).code).toBe(Code.Unimplemented);
    expect((await attempt({ type: "loop", source: "/nothing" })).message).toMatch(
      /^mount handler failed \{loop \/nothing {2}\[\]\}: .*no such file or directory/,
    );
    expect(await attempt(bind(source), { type: "format/bind", source: "{{ mount 7 }}" })).toMatchObject({
      code: Code.InvalidArgument,
      message: expect.stringContaining("index out of bounds: 7, has 1 active mounts"),
    });
    expect((await attempt(bind(source), { type: "format/bind", source: "{{ printf }}" })).message).toContain(
      'function "printf" not defined',
    );
    expect((await attempt(made("/etc/bunkerd-test"))).code).toBe(Code.Unimplemented);
    expect(await attempt(made(`${source}/out/made`))).toMatchObject({
      code: Code.InvalidArgument,
      message: expect.stringContaining("escapes from"),
    });
    expect((await attempt(made(`${source}/../../made`))).code).toBe(Code.Unimplemented);
    expect(existsSync(join(daemon.folder, "made"))).toBe(false);
    const unsized = { type: "mkfs/loop", source: join(daemon.root, "a.img") };
    expect((await attempt(unsized)).message).toBe("mkfs requires mkfs.size option: invalid argument");
    const sized = { ...unsized, options: ["X-containerd.mkfs.size=1KiB"] };
    expect((await attempt(sized)).message).toContain("mkfs.ext4 failed");
    for (const [setting, words] of [
      ["size=9999p", 'bad option size: "9999p" is out of range'],
      [`size=${"9".repeat(400)}`, "is out of range"],
      ["size=-1", "bad option size: invalid size"],
      ["fs=constructor", 'unsupported filesystem "constructor"'],
      ["fs=../../bin/sh", 'unsupported filesystem "../../bin/sh"'],
    ] as const) {
      const asked = [...sized.options, `X-containerd.mkfs.${setting}`];
      expect(await attempt({ ...unsized, options: asked })).toMatchObject({
        code: Code.InvalidArgument,
        message: expect.stringContaining(words),
      });
    }
    expect(
      (await attempt({ ...bind(source), target: "../../out" }, { type: "loop", source })).message,
    ).toMatch(/mount .*\/t\/\d+\/2\/out: no such file or directory/);
    expect(existsSync(join(daemon.root, "a.img"))).toBe(false);
    expect(leftIn(daemon)).toEqual([]);
    for await (const _ of client.list({}, options)) throw new Error("a record is left");
  });
});

test("a name may be anything, and names no file; of several calls for one name one is carried out", async () => {
  const daemon = await begin();
  await using connection = connectGrpc(daemon.socket);
  const client = connection.client(Mounts);
  const source = join(daemon.folder, "source");
  mkdirSync(source);
  const activate = (name: string) =>
    client.activate({ name, mounts: [bind(source)], temporary: true }, options);
  for (const name of ["..", "../../x", "/etc", "a\0b", "x".repeat(32_768)]) {
    const { info } = await activate(name);
    expect(info?.active[0]?.mountPoint).toMatch(/\/t\/\d+\/1$/);
    await client.deactivate({ name }, options);
  }
  expect((await errorOf(activate(""))).code).toBe(Code.InvalidArgument);
  expect((await errorOf(activate("x".repeat(32_769)))).code).toBe(Code.InvalidArgument);
  const six = <T>(call: () => Promise<T>) =>
    Promise.allSettled(Array.from({ length: 6 }, call)).then((all) =>
      all.filter(({ status }) => status === "fulfilled"),
    );
  expect(await six(() => activate("one"))).toHaveLength(1);
  expect(mountsOf(daemon)).toHaveLength(1);
  expect(await six(() => client.deactivate({ name: "one" }, options))).toHaveLength(1);
  expect(leftIn(daemon)).toEqual([]);
});

test("a file system that several want at once is made once", async () => {
  const daemon = await begin();
  await using connection = connectGrpc(daemon.socket);
  const client = connection.client(Mounts);
  const image = layered(daemon, daemon.folder).slice(0, 1);
  const names = ["a", "b", "c", "d"];
  const infos = await Promise.all(
    names.map((name) => client.activate({ name, mounts: image }, inNamespace(name))),
  );
  const inode = statSync(join(daemon.root, "disk.img")).ino;
  for (const { info } of infos) {
    const device = basename(readlinkSync(info?.active[0]?.mountPoint ?? ""));
    expect(loopsOf(daemon)).toContain(device);
    const backing = readFileSync(join("/sys/block", device, "loop/backing_file"), "utf8").trim();
    expect(statSync(backing).ino).toBe(inode);
  }
  for (const name of names) await client.deactivate({ name }, inNamespace(name));
  expect(leftIn(daemon)).toEqual([]);
});

describe("what keeps it", () => {
  test("a lease or an object that it belongs to; without both, the next collection takes it", async () => {
    const daemon = await begin();
    await using connection = connectGrpc(daemon.socket);
    const client = connection.client(Mounts);
    const leases = connection.client(Leases);
    const containers = connection.client(Containers);
    const collect = async (): Promise<string[]> => {
      await leases.create({ id: "trigger" }, options);
      await leases.delete({ id: "trigger", sync: true }, options);
      const names: string[] = [];
      for await (const { info } of client.list({}, options)) names.push(info?.name ?? "");
      expect(mountsOf(daemon)).toHaveLength(names.length);
      return names;
    };
    const source = join(daemon.folder, "source");
    mkdirSync(source);
    const activate = (name: string, labels: Record<string, string> = {}, lease?: string) =>
      client.activate(
        { name, mounts: [bind(source)], temporary: true, labels },
        inNamespace("mounts", lease === undefined ? {} : { "containerd-lease": lease }),
      );
    await leases.create({ id: "keeps" }, options);
    await containers.create({ container: { id: "owner", runtime: { name: "r" } } }, options);
    await activate("leased", {}, "keeps");
    await activate("owned", { "containerd.io/gc.bref.container.rootfs": "owner" });
    await activate("lost", { "containerd.io/gc.bref.container": "nobody" });
    await activate("alone");
    expect(await collect()).toEqual(["leased", "owned"]);
    await containers.delete({ id: "owner" }, options);
    expect(await collect()).toEqual(["leased"]);
    await leases.delete({ id: "keeps", sync: true }, options);
    expect(await collect()).toEqual([]);
    expect(leftIn(daemon)).toEqual([]);
  });

  test("what is in use is forgotten and taken away by a later collection", async () => {
    const daemon = await begin();
    await using connection = connectGrpc(daemon.socket);
    const client = connection.client(Mounts);
    const request = { name: "busy", mounts: [{ type: "tmpfs", source: "tmpfs" }], temporary: true };
    const { info } = await client.activate(request, options);
    const user = Bun.spawn(["sleep", "infinity"], { cwd: info?.active[0]?.mountPoint ?? "" });
    const failure = await errorOf(client.deactivate({ name: "busy" }, options));
    expect(failure.message).toContain("device or resource busy");
    user.kill("SIGKILL");
    await user.exited;
    expect(mountsOf(daemon)).toHaveLength(1);
    const leases = connection.client(Leases);
    await leases.create({ id: "trigger" }, options);
    await leases.delete({ id: "trigger", sync: true }, options);
    expect(leftIn(daemon)).toEqual([]);
  });
});

test("killed at any step: what is whole stays, of the rest nothing is left", async () => {
  const points = ["recorded", "target", "mounted", "activated", "forgotten"];
  for (const [point, visit] of [...points.map((name) => [name, 1] as const), ["target", 2] as const]) {
    process.env["BUNKERD_FAILPOINTS"] = `mounts.${point}=kill@${visit}`;
    let daemon = await begin().finally(() => {
      delete process.env["BUNKERD_FAILPOINTS"];
    });
    const lower = join(daemon.folder, "lower");
    mkdirSync(lower);
    {
      await using connection = connectGrpc(daemon.socket);
      const client = connection.client(Mounts);
      const play = async (): Promise<void> => {
        await client.activate({ name: "disk", mounts: layered(daemon, lower) }, options);
        await client.deactivate({ name: "disk" }, options);
      };
      await errorOf(play());
    }
    await daemon.exited;
    daemon = await begin(daemon.folder);
    await using connection = connectGrpc(daemon.socket);
    const client = connection.client(Mounts);
    const whole = point === "activated";
    expect([point, mountsOf(daemon).length, loopsOf(daemon).length]).toEqual([point, +whole, +whole]);
    if (whole) await client.deactivate({ name: "disk" }, options);
    expect(leftIn(daemon)).toEqual([]);
    await daemon.stop();
  }
});

test("after a reboot a mount has gone with its record", async () => {
  let daemon = await begin();
  const lower = join(daemon.folder, "lower");
  mkdirSync(lower);
  {
    await using connection = connectGrpc(daemon.socket);
    const client = connection.client(Mounts);
    await client.activate({ name: "disk", mounts: layered(daemon, lower) }, options);
  }
  await daemon.halt();
  for (const mounted of mountsOf(daemon)) unmount(mounted);
  daemon = await begin(daemon.folder);
  await using connection = connectGrpc(daemon.socket);
  const client = connection.client(Mounts);
  expect((await errorOf(client.info({ name: "disk" }, options))).code).toBe(Code.NotFound);
  expect(leftIn(daemon)).toEqual([]);
});
