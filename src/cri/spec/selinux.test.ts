/** This machine has no SELinux: the policy's file is given, and what comes out is what go-selinux's `label.InitLabels` makes of it. */
import { describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { SELinuxOptionSchema } from "#gen/runtime/v1/api_pb.ts";
import { packSpec } from "../../client/spec.ts";
import { getXattr } from "../../linux/xattr.ts";
import { assertSelinuxLevel, labelledMounts, SelinuxLabels } from "./selinux.ts";

/** As container-selinux has them. */
const CONTEXTS = `
# of containers
process = "system_u:system_r:container_t:s0"
file = "system_u:object_r:container_file_t:s0"
ro_file="system_u:object_r:container_ro_file_t:s0"
kvm_process = "system_u:system_r:container_kvm_t:s0"
`;

const option = (parts: { user?: string; role?: string; type?: string; level?: string }) =>
  create(SELinuxOptionSchema, parts);

describe("SELinux labels", () => {
  test("a container gets two categories of its own, and its files the same", () => {
    const labels = new SelinuxLabels(CONTEXTS);
    const { processLabel, mountLabel } = labels.labelsFor(undefined, "");
    const level = /^system_u:system_r:container_t:(s0:c\d+,c\d+)$/.exec(processLabel)?.[1];
    expect(level).toBeString();
    expect(mountLabel).toBe(`system_u:object_r:container_file_t:${level}`);
  });

  test("no two have the same until one is released", () => {
    const labels = new SelinuxLabels(CONTEXTS, 3);
    const given = [1, 2, 3].map(() => labels.labelsFor(undefined, "").processLabel);
    expect(new Set(given).size).toBe(3);
    expect(() => labels.labelsFor(undefined, "")).toThrow("resource exhausted");
    labels.release(given[1] ?? "");
    expect(labels.labelsFor(undefined, "").processLabel).toBe(given[1] ?? "none");
  });

  test("a level that a pod shares with its containers is free once all are gone", () => {
    const labels = new SelinuxLabels(CONTEXTS, 2);
    const { processLabel } = labels.labelsFor(undefined, "");
    expect(labels.labelsFor(undefined, processLabel).processLabel).toBe(processLabel);
    labels.release(processLabel);
    expect(() => labels.labelsFor(undefined, "")).toThrow("resource exhausted");
    labels.release(processLabel);
    expect(labels.labelsFor(undefined, "").processLabel).toBe(processLabel);
  });

  test("a root file system is mounted with the label of its files", () => {
    const mounts = [{ type: "overlay", options: ["lowerdir=/l"] }];
    const spec = (mountLabel: string) => packSpec({ ociVersion: "1.2.1", linux: { mountLabel } });
    expect(labelledMounts(mounts, spec("a:b:c:s0:c1,c2"))).toEqual([
      { type: "overlay", options: ["lowerdir=/l", 'context="a:b:c:s0:c1,c2"'] },
    ]);
    expect(labelledMounts(mounts, spec(""))).toEqual(mounts);
    expect(labelledMounts(mounts, undefined)).toEqual(mounts);
  });

  test("what is found in use after a restart is not given again", () => {
    const labels = new SelinuxLabels(CONTEXTS, 2);
    labels.reserve("system_u:system_r:container_t:s0:c0,c1");
    expect(() => labels.labelsFor(undefined, "")).toThrow("resource exhausted");
  });

  test("a container without options has its pod's label", () => {
    const pod = "u:r:t:s0:c5,c6";
    expect(new SelinuxLabels(CONTEXTS).labelsFor(undefined, pod)).toEqual({
      processLabel: pod,
      mountLabel: "u:object_r:container_file_t:s0:c5,c6",
    });
  });

  test.each([
    [
      option({ role: "user_r", level: "s0:c1,c2" }),
      "system_u:user_r:container_t:s0:c1,c2",
      "system_u:object_r:container_file_t:s0:c1,c2",
    ],
    [
      option({ user: "user_u", role: "user_r", type: "user_t", level: "s0:c1,c2" }),
      "user_u:user_r:user_t:s0:c1,c2",
      "user_u:object_r:container_file_t:s0:c1,c2",
    ],
  ])("options stand over the policy: %j", (asked, processLabel, mountLabel) => {
    const labels = new SelinuxLabels(CONTEXTS);
    expect(labels.labelsFor(asked, "u:r:t:s0:c5,c6")).toEqual({ processLabel, mountLabel });
    // A level that the user chose may be chosen twice.
    expect(labels.labelsFor(asked, "").processLabel).toBe(processLabel);
  });

  test("virtual machines have a type of their own", () => {
    const labels = new SelinuxLabels(CONTEXTS);
    const label = "system_u:system_r:container_t:s0:c1,c2";
    expect(labels.labelOfRuntime(label, "io.containerd.kata.v2")).toBe(
      "system_u:system_r:container_kvm_t:s0:c1,c2",
    );
    expect(labels.labelOfRuntime(label, "io.containerd.runc.v2")).toBe(label);
  });

  test("a policy without containers gives none", () => {
    expect(new SelinuxLabels("").labelsFor(undefined, "")).toEqual({ processLabel: "", mountLabel: "" });
    expect(() => new SelinuxLabels(CONTEXTS, 1025)).toThrow("can't have more than");
  });

  test.each(["s0", "s0-s0", "s0:c0", "s0:c0.c3", "s0-s0:c0,c3.c6,c8.c10"])("%s is a level", (level) => {
    expect(() => assertSelinuxLevel(option({ level }))).not.toThrow();
  });

  test.each(["s0,c0,c3", "s0:c0.c3.c6", "s0-s0,c0,c3", "s0-s0:c0.c3.c6", "x"])("%s is none", (level) => {
    expect(() => assertSelinuxLevel(option({ level }))).toThrow("is not correct");
  });

  test("relabelling reaches everything below, links themselves, and no folder of the system", async () => {
    const folder = mkdtempSync(join(tmpdir(), "bk-selinux-"));
    const labelOf = (name: string) =>
      Buffer.from(getXattr(join(folder, name), "security.selinux")).toString();
    try {
      mkdirSync(join(folder, "tree/deep"), { recursive: true });
      writeFileSync(join(folder, "tree/deep/file"), "");
      writeFileSync(join(folder, "outside"), "");
      symlinkSync("../outside", join(folder, "tree/link"));
      const labels = new SelinuxLabels(CONTEXTS);
      await labels.relabel(join(folder, "tree/"), "a:b:c:s0");
      for (const name of ["tree", "tree/deep", "tree/deep/file", "tree/link"])
        expect(labelOf(name)).toBe("a:b:c:s0");
      expect(() => labelOf("outside")).toThrow("no data available");
      await labels.relabel(join(folder, "tree"), "");
      expect(labelOf("tree")).toBe("a:b:c:s0");
      await expect(labels.relabel("/usr/", "a:b:c")).rejects.toThrow(
        "SELinux relabeling of /usr is not allowed",
      );
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});
