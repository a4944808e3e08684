import { expect, test } from "bun:test";
import { lookUpMount, mountPointsBelow } from "./mountinfo.ts";

const TABLE = `22 28 0:20 / /sys rw shared:7 - sysfs sysfs rw
30 28 8:1 / /run/a rw - ext4 /dev/sda rw
31 30 8:1 / /run/a/rootfs rw - overlay overlay rw
32 31 8:1 / /run/a/rootfs/with\\040space\\134x rw - tmpfs tmpfs rw
33 31 8:1 / /run/a/rootfs rw - overlay overlay rw
34 28 8:1 / /run/ab rw - ext4 /dev/sda rw
`;

test("mounts below a path, the deepest first, names unescaped, neighbours left alone", () => {
  expect(mountPointsBelow("/run/a", TABLE)).toEqual([
    "/run/a/rootfs/with space\\x",
    "/run/a/rootfs",
    "/run/a/rootfs",
    "/run/a",
  ]);
  expect(mountPointsBelow("/run/a/b", TABLE)).toEqual([]);
});

test.each([
  ["/sys/fs", "/sys", ["shared:7"]],
  ["/run/a/rootfs/x", "/run/a/rootfs", []],
  ["/run/a/rootfs/with space\\x", "/run/a/rootfs/with space\\x", []],
  ["/run/ab", "/run/ab", []],
])("%s stands on the mount of %s", (path, point, tags) => {
  expect(lookUpMount(path, TABLE)).toMatchObject({ point, tags });
});

test("a path that stands on no mount of the table", () => {
  expect(lookUpMount("/home", TABLE)).toBeUndefined();
  expect(lookUpMount("/sys", TABLE)).toEqual({
    point: "/sys",
    tags: ["shared:7"],
    type: "sysfs",
    superOptions: "rw",
  });
});
