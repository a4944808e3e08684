import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { AnySchema } from "@bufbuild/protobuf/wkt";
import { Code } from "@connectrpc/connect";
import { PlatformSchema } from "#gen/containerd/types/platform_pb.ts";
import { inProcessClient } from "../../test/support/in-process.ts";
import { BunkerdError, fail } from "../model/errors.ts";
import type { Plugin } from "../model/plugins.ts";
import { introspectionService } from "./introspection.ts";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "bunkerd-introspection-"));
});
afterEach(() => rmSync(folder, { recursive: true }));

const base = { requires: [], platforms: [], exports: {}, capabilities: [] };
const plugins: Plugin[] = [
  {
    ...base,
    type: "io.containerd.metadata.v1",
    id: "bolt",
    exports: { policy: "shared" },
    requires: ["io.containerd.event.v1"],
  },
  {
    ...base,
    type: "io.containerd.snapshotter.v1",
    id: "overlayfs",
    platforms: [create(PlatformSchema, { os: "linux", architecture: "amd64" })],
    capabilities: ["rebase"],
    initError: fail("FailedPrecondition", "overlayfs is not supported"),
  },
  { ...base, type: "io.containerd.snapshotter.v1", id: "zfs", initError: new Error("skip plugin: no zfs") },
  {
    ...base,
    type: "io.containerd.runtime.v2",
    id: "task",
    info: async (options) => {
      if (options.typeUrl === "bad") throw new BunkerdError("NotFound", "no such runtime");
      return create(AnySchema, { typeUrl: "info", value: options.value });
    },
  },
];

function client(directory = join(folder, "io.containerd.grpc.v1.introspection")) {
  const id = "io.containerd.deprecation/enable-cdi";
  const deprecations = {
    list: () => [{ id, message: "old", lastSeen: 1_700_000_000_000_000_007n } as const],
  };
  const table = { list: () => plugins };
  return inProcessClient(introspectionService({ plugins: table, directory, deprecations }));
}

describe("Plugins", () => {
  test("tells every plugin with its state", async () => {
    const found = (await client().plugins({})).plugins;
    expect(found.map(({ type, id, initErr }) => [type, id, initErr?.code, initErr?.message])).toEqual([
      ["io.containerd.metadata.v1", "bolt", undefined, undefined],
      [
        "io.containerd.snapshotter.v1",
        "overlayfs",
        Code.FailedPrecondition,
        "overlayfs is not supported: failed precondition",
      ],
      ["io.containerd.snapshotter.v1", "zfs", Code.Unknown, "skip plugin: no zfs"],
      ["io.containerd.runtime.v2", "task", undefined, undefined],
    ]);
    expect(found[0]).toMatchObject({ exports: { policy: "shared" }, requires: ["io.containerd.event.v1"] });
    expect(found[1]).toMatchObject({
      platforms: [{ os: "linux", architecture: "amd64" }],
      capabilities: ["rebase"],
    });
  });

  test.each([
    [["id==bolt"], ["bolt"]],
    [["type==io.containerd.snapshotter.v1"], ["overlayfs", "zfs"]],
    [
      ["type==io.containerd.snapshotter.v1,id!=zfs", "id==task"],
      ["overlayfs", "task"],
    ],
    [["id~=^z"], ["zfs"]],
    [["capabilities"], []],
    [[""], ["bolt", "overlayfs", "zfs", "task"]],
  ])("filters %p choose %p", async (filters, ids) => {
    expect((await client().plugins({ filters })).plugins.map(({ id }) => id)).toEqual(ids);
  });

  test("a filter's syntax error has containerd's words", async () => {
    await expect(client().plugins({ filters: ["id="] })).rejects.toThrow(
      '[invalid_argument] invalid argument: filters: parse error: [id >|=|< ]: unsupported operator "=": invalid argument',
    );
  });
});

describe("PluginInfo", () => {
  test("answers the plugin, and what it says to options", async () => {
    const request = { type: "io.containerd.runtime.v2", id: "task" };
    const plain = await client().pluginInfo(request);
    expect([plain.plugin?.id, plain.extra]).toEqual(["task", undefined]);
    const extra = (
      await client().pluginInfo({ ...request, options: { typeUrl: "t", value: new Uint8Array([7]) } })
    ).extra;
    expect(extra).toMatchObject({ typeUrl: "info", value: new Uint8Array([7]) });
  });

  test.each([
    ["a", "b", undefined, "[not_found] plugin a.b not found: not found"],
    ["a", "task", undefined, "[not_found] plugin a.task not found: not found"],
    [
      "io.containerd.snapshotter.v1",
      "overlayfs",
      "x",
      "[failed_precondition] cannot get extra info, plugin not successfully loaded: failed precondition",
    ],
    [
      "io.containerd.metadata.v1",
      "bolt",
      "x",
      "[unimplemented] plugin does not provided extra information: not implemented",
    ],
    ["io.containerd.runtime.v2", "task", "bad", "[not_found] no such runtime"],
  ])("%s.%s with options %p is refused", async (type, id, typeUrl, message) => {
    const options = typeUrl === undefined ? {} : { options: { typeUrl } };
    await expect(client().pluginInfo({ type, id, ...options })).rejects.toThrow(message);
  });
});

describe("Server", () => {
  test("keeps its UUID in containerd's file and tells process and deprecations", async () => {
    const first = await client().server({});
    const path = join(folder, "io.containerd.grpc.v1.introspection/uuid");
    expect(readFileSync(path, "utf8")).toBe(first.uuid);
    expect(first.uuid).toMatch(/^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/);
    expect(statSync(join(path, "..")).mode & 0o777).toBe(0o700);
    expect(first.pid).toBe(BigInt(process.pid));
    expect(first.pidns).toBe(statSync(`/proc/${process.pid}/ns/pid`, { bigint: true }).ino);
    expect(first.deprecations).toMatchObject([
      {
        id: "io.containerd.deprecation/enable-cdi",
        message: "old",
        lastOccurrence: { seconds: 1_700_000_000n, nanos: 7 },
      },
    ]);
    expect((await client().server({})).uuid).toBe(first.uuid);
  });

  test("takes over a UUID that is there, and replaces an empty file", async () => {
    const directory = join(folder, "plugin");
    mkdirSync(directory);
    const uuid = "5a58df86-69a3-4e88-b2e0-4fd718fdccd9";
    writeFileSync(join(directory, "uuid"), uuid);
    expect((await client(directory).server({})).uuid).toBe(uuid);
    writeFileSync(join(directory, "uuid"), "");
    const replaced = (await client(directory).server({})).uuid;
    expect(replaced.length).toBe(36);
    expect(readFileSync(join(directory, "uuid"), "utf8")).toBe(replaced);
  });

  test("says which file is damaged and leaves it as it is", async () => {
    writeFileSync(join(folder, "uuid"), "not a uuid\n");
    await expect(client(folder).server({})).rejects.toThrow(
      `[data_loss] server UUID in ${folder}/uuid is "not a uuid\\n": data loss`,
    );
    expect(readFileSync(join(folder, "uuid"), "utf8")).toBe("not a uuid\n");
  });
});
