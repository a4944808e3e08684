import { afterAll, beforeAll, expect, test } from "bun:test";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { makeNode } from "../../linux/inode.ts";
import { terminationMessage } from "../object.ts";
import type { ObservedContainer } from "../status.ts";
import { writePayload } from "./atomic-writer.ts";
import { prepareHostPath } from "./host-path.ts";
import type { MountsInput } from "./mounts.ts";
import { containerMounts } from "./mounts.ts";
import { setOwnership } from "./ownership.ts";

let base: string;
beforeAll(() => {
  base = mkdtempSync(join(tmpdir(), "bkt-volumes-"));
});
afterAll(() => rmSync(base, { recursive: true }));

const payload = (text: string) => new Map([["key", { data: Buffer.from(text), mode: 0o644 }]]);

function volume(name: string): string {
  const folder = join(base, name);
  mkdirSync(folder);
  return folder;
}

test("hostPath: what each type takes, makes and refuses", () => {
  const folder = volume("host");
  const at = (name: string): string => join(folder, name);
  writeFileSync(at("file"), "");
  makeNode(at("socket"), 0o140600, 0n);
  makeNode(at("block"), 0o060600, 7n << 8n);
  const there = {
    Directory: folder,
    File: at("file"),
    Socket: at("socket"),
    CharDevice: "/dev/null",
    BlockDevice: at("block"),
  } as const;
  for (const [type, path] of Object.entries(there) as [keyof typeof there, string][]) {
    prepareHostPath({ path, type });
    prepareHostPath({ path, type: "" });
    for (const other of Object.keys(there) as (keyof typeof there)[]) {
      if (other !== type)
        expect(() => prepareHostPath({ path, type: other })).toThrow(
          `hostPath type check failed: ${path} is not a`,
        );
    }
    expect(() => prepareHostPath({ path: at("gone"), type })).toThrow(`${at("gone")} is not a`);
  }
  prepareHostPath({ path: at("gone"), type: "" });
  expect(existsSync(at("gone"))).toBe(false);
  for (let round = 0; round < 2; round++) {
    prepareHostPath({ path: at("made/deep"), type: "DirectoryOrCreate" });
    prepareHostPath({ path: at("fresh"), type: "FileOrCreate" });
  }
  expect([statSync(at("made/deep")).mode & 0o7777, statSync(at("fresh")).mode & 0o7777]).toEqual([
    0o755, 0o644,
  ]);
  expect(() => prepareHostPath({ path: at("made"), type: "FileOrCreate" })).toThrow("is not a file");
  expect(() => prepareHostPath({ path: at("fresh"), type: "DirectoryOrCreate" })).toThrow(
    "is not a directory",
  );
});

test("files are replaced as a whole, and the old ones go", () => {
  const folder = volume("sound");
  writePayload(folder, payload("old"), undefined);
  const old = readlinkSync(join(folder, "..data"));
  writePayload(folder, payload("new"), undefined);
  expect(readFileSync(join(folder, "key"), "utf8")).toBe("new");
  expect(existsSync(join(folder, old))).toBe(false);
});

test("a link to the files that somebody has turned elsewhere removes nothing there", () => {
  const folder = volume("turned");
  const precious = volume("precious");
  writeFileSync(join(precious, "file"), "kept");
  for (const target of ["../precious", precious, "..", "../..", "..data/../../precious"]) {
    writePayload(folder, payload("old"), undefined);
    rmSync(join(folder, "..data"));
    symlinkSync(target, join(folder, "..data"));
    writePayload(folder, payload(`new ${target}`), undefined);
    expect(readFileSync(join(precious, "file"), "utf8")).toBe("kept");
    expect(readFileSync(join(folder, "key"), "utf8")).toBe(`new ${target}`);
  }
});

test("volumes of objects are mounted read-only, whatever the container asks for", () => {
  const volumes = [
    { name: "config", configMap: {} },
    { name: "secret", secret: {} },
    { name: "down", downwardAPI: {} },
    { name: "all", projected: {} },
    { name: "own", emptyDir: {} },
  ];
  const volumeMounts = volumes.map(({ name }) => ({ name, mountPath: `/${name}`, readOnly: false }));
  const input = {
    pod: { metadata: { name: "p" }, spec: { volumes } },
    container: { name: "c", volumeMounts, terminationMessagePath: "/end" },
    paths: { container: () => join(base, "container"), hostsFile: "" },
    volumes: new Map(volumes.map(({ name }) => [name, base])),
    images: new Map(),
    env: new Map(),
    recursiveReadOnly: false,
    hostsFile: false,
  } as unknown as MountsInput;
  const mounts = containerMounts(input);
  const readonly = Object.fromEntries(mounts.map((mount) => [mount.containerPath, mount.readonly]));
  expect(readonly).toEqual({
    "/config": true,
    "/secret": true,
    "/down": true,
    "/all": true,
    "/own": false,
    "/end": false,
  });
});

test("an emptyDir is its group's, and what containers have put there is left alone", () => {
  const folder = volume("group");
  const outside = volume("outside");
  writeFileSync(join(outside, "file"), "", { mode: 0o600 });
  writeFileSync(join(folder, "own"), "", { mode: 0o600 });
  symlinkSync(outside, join(folder, "link"));
  setOwnership(folder, 4242);
  setOwnership(folder, 4242);
  expect(statSync(folder)).toMatchObject({ gid: 4242, mode: 0o042775 });
  for (const path of [join(folder, "own"), join(outside, "file")])
    expect(statSync(path)).toMatchObject({ gid: 0, mode: 0o100600 });
});

test("a message is read from a file alone, whatever a pod has mounted at its path", () => {
  const folder = volume("messages");
  makeNode(join(folder, "pipe"), 0o010600, 0n);
  writeFileSync(join(folder, "file"), "the end");
  const messages = ["file", "pipe", "none", "."].map((name) =>
    terminationMessage({
      facts: { terminationMessagePath: "/end", terminationMessagePolicy: "File" },
      mounts: [{ hostPath: join(folder, name), containerPath: "/end" }],
      exitCode: 1,
      logPath: "",
    } as unknown as ObservedContainer),
  );
  expect(messages).toEqual(["the end", "", "", ""]);
});
