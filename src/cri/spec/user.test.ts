import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { Int64ValueSchema, SupplementalGroupsPolicy } from "#gen/runtime/v1/api_pb.ts";
import type { Process } from "./spec.ts";
import { applyContainerUser, type UserRequest } from "./user.ts";

const root = mkdtempSync(join(tmpdir(), "bk-user-"));
const outside = mkdtempSync(join(tmpdir(), "bk-user-outside-"));
const int = (value: number) => create(Int64ValueSchema, { value: BigInt(value) });
const { Merge, Strict } = SupplementalGroupsPolicy;

beforeAll(() => {
  mkdirSync(join(root, "etc"));
  mkdirSync(join(root, "real"));
  symlinkSync("/real/passwd", join(root, "etc/passwd"));
  symlinkSync("../../../../real/group", join(root, "etc/group"));
  const users = "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1001::/:\n\nbroken\n";
  writeFileSync(join(root, "real/passwd"), users);
  const groups = "# groups\nroot:x:0:web\nweb:x:1001:web\nextra:x:50:other,web\nnone:x:60:\n";
  writeFileSync(join(root, "real/group"), groups);
});

afterAll(() => {
  for (const folder of [root, outside]) rmSync(folder, { recursive: true });
});

function resolved(
  request: Partial<UserRequest>,
  policy: SupplementalGroupsPolicy,
  at = root,
): Process["user"] {
  const process: Process = { user: { uid: 0, gid: 0 }, env: [], cwd: "/" };
  applyContainerUser(process, { imageUser: "", supplementalGroups: [], ...request }, policy, at);
  return process.user;
}

describe("user of a container", () => {
  test.each<[string, Partial<UserRequest>, SupplementalGroupsPolicy, Process["user"]]>([
    ["nothing said", {}, Merge, { uid: 0, gid: 0, additionalGids: [0] }],
    ["nothing said, strict", {}, Strict, { uid: 0, gid: 0, additionalGids: [] }],
    ["a name", { runAsUsername: "web" }, Merge, { uid: 1000, gid: 1001, additionalGids: [0, 50, 1001] }],
    ["a number", { runAsUser: int(1000) }, Strict, { uid: 1000, gid: 1001, additionalGids: [1001] }],
    ["an unknown number", { runAsUser: int(7) }, Merge, { uid: 7, gid: 0, additionalGids: [0] }],
    [
      "number and group",
      { runAsUser: int(1000), runAsGroup: int(9), supplementalGroups: [4n, 3n, 4n] },
      Merge,
      { uid: 1000, gid: 9, additionalGids: [0, 3, 4, 9, 50] },
    ],
    ["the image's", { imageUser: "web:extra" }, Strict, { uid: 1000, gid: 50, additionalGids: [50] }],
    [
      "the request's before the image's",
      { imageUser: "web", runAsUser: int(0) },
      Strict,
      { uid: 0, gid: 0, additionalGids: [0] },
    ],
  ])("%s", (_, request, policy, expected) => {
    expect(resolved(request, policy)).toEqual(expected);
  });

  test.each<[string, Partial<UserRequest>]>([
    ["no users found", { runAsUsername: "nobody" }],
    ["no groups found", { imageUser: "web:nobodies" }],
    ["invalid USER value a:b:c", { imageUser: "a:b:c" }],
    ['invalid USER value "2147483648": uid out of range', { imageUser: "2147483648" }],
    ['invalid USER value "1:-1": gid out of range', { imageUser: "1:-1" }],
    ['user group "5" is specified without user', { runAsGroup: int(5) }],
  ])("%s", (message, request) => {
    expect(() => resolved(request, Merge)).toThrow(message);
  });

  test("without /etc/passwd numbers are taken as they are and names are not", () => {
    const bare = join(outside, "bare");
    mkdirSync(bare);
    expect(resolved({ runAsUser: int(5) }, Merge, bare)).toEqual({ uid: 5, gid: 0, additionalGids: [0] });
    expect(() => resolved({ runAsUsername: "web" }, Merge, bare)).toThrow("open etc/passwd: no such file");
  });

  test("a link does not lead out of the root", () => {
    const tricked = join(outside, "tricked");
    mkdirSync(tricked);
    writeFileSync(join(outside, "passwd"), "web:x:1:1::/:\n");
    symlinkSync(outside, join(tricked, "etc"));
    expect(() => resolved({ runAsUsername: "web" }, Merge, tricked)).toThrow("open etc/passwd");
    const loop = join(outside, "loop");
    mkdirSync(loop);
    symlinkSync("etc", join(loop, "etc"));
    expect(() => resolved({ runAsUsername: "web" }, Merge, loop)).toThrow(
      "too many levels of symbolic links",
    );
  });

  test("what is no regular file is not read", () => {
    const odd = join(outside, "odd");
    mkdirSync(join(odd, "etc/passwd"), { recursive: true });
    expect(() => resolved({ runAsUsername: "web" }, Merge, odd)).toThrow("etc/passwd is not a regular file");
  });
});
