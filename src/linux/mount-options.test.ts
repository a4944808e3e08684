import { expect, test } from "bun:test";
import { MountFlag } from "./mount.ts";
import { parseMountOptions } from "./mount-options.ts";

test("options become flags in their order, propagation calls of its own, the rest the file system's", () => {
  expect(parseMountOptions(["ro", "nosuid", "rw", "rbind", "rprivate", "lowerdir=/a:/b", "size=1k"])).toEqual(
    {
      flags: MountFlag.noSuid | MountFlag.bind | MountFlag.recursive,
      propagation: [MountFlag.private | MountFlag.recursive],
      data: ["lowerdir=/a:/b", "size=1k"],
    },
  );
});
