import { expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { MountSchema } from "#gen/containerd/types/mount_pb.ts";
import { withMounts } from "./mounts.ts";

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
