import { expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, readdirSync, readlinkSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { MountSchema } from "#gen/containerd/types/mount_pb.ts";
import { mountNamed } from "../linux/mount-options.ts";
import { useTemporaryMounts, withMounts } from "./mounts.ts";

test("a snapshot whose ids are mapped is read with the ids that are on the disk", async () => {
  const folder = mkdtempSync(join(tmpdir(), "bunkerd-mounts-"));
  const at = (name: string): string => join(folder, name);
  try {
    for (const name of ["lower", "upper", "work"]) mkdirSync(at(name));
    writeFileSync(join(at("lower"), "one"), "1");
    writeFileSync(join(at("upper"), "two"), "2");
    const options = ["uidmap=0:700000:65536", "gidmap=0:700000:65536", `workdir=${at("work")}`];
    const mount = create(MountSchema, {
      type: "overlay",
      source: "overlay",
      options: [...options, `upperdir=${at("upper")}`, `lowerdir=${at("lower")}`],
    });
    const names = await withMounts([mount], "read", async (root) => readdirSync(root).sort());
    expect(names).toEqual(["one", "two"]);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test("more layers than fit into a mount's options by their names are read, and the links to them are gone by then", async () => {
  const folder = mkdtempSync(join(tmpdir(), "bunkerd-mounts-"));
  const linksToUs = (): string[] =>
    readdirSync("/tmp")
      .filter((name) => /^b\w{6}$/.test(name))
      .filter((name) => isLinkBelow(join("/tmp", name, "0"), folder));
  try {
    const layers = Array.from({ length: 100 }, (_, at) => join(folder, `${at}`.padStart(50, "0")));
    for (const [at, layer] of layers.entries()) {
      mkdirSync(layer);
      writeFileSync(join(layer, `file-${at}`), "");
    }
    const options = [`lowerdir=${layers.join(":")}`];
    const mount = create(MountSchema, { type: "overlay", source: "overlay", options });
    const [names, links] = await withMounts([mount], "read", async (root) => [
      readdirSync(root),
      linksToUs(),
    ]);
    expect(names?.sort()).toEqual(layers.map((_, at) => `file-${at}`).sort());
    expect(links).toEqual([]);
    const missing = create(MountSchema, { ...mount, options: [`${options[0]}:${join(folder, "none")}`] });
    await expect(withMounts([missing], "read", async () => undefined)).rejects.toThrow("failed to mount");
    expect(linksToUs()).toEqual([]);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

function isLinkBelow(path: string, folder: string): boolean {
  try {
    return readlinkSync(path).startsWith(folder);
  } catch {
    return false;
  }
}

test("what a daemon that was killed left mounted is taken away, and what follows is mounted there", async () => {
  const folder = mkdtempSync(join(tmpdir(), "bunkerd-mounts-"));
  const place = join(folder, "tmpmounts");
  try {
    const left = join(place, "bunkerd-mount-left");
    mkdirSync(left, { recursive: true });
    mkdirSync(join(place, "bunkerd-mount-empty"));
    for (let twice = 0; twice < 2; twice++) mountNamed({ type: "tmpfs", source: "tmpfs", options: [] }, left);
    writeFileSync(join(left, "file"), "");
    using _ = useTemporaryMounts(place);
    expect(readdirSync(place)).toEqual([]);
    const mount = create(MountSchema, { type: "tmpfs", source: "tmpfs" });
    const seen = await withMounts([mount], "write", async (root) => root);
    expect(seen).toStartWith(join(place, "bunkerd-mount-"));
    expect(readdirSync(place)).toEqual([]);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
