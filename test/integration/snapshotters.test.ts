/** Both snapshotters pass one suite; a table says where each case of containerd's `core/snapshots/testsuite` is. */
import { describe, expect, test } from "bun:test";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { systemClock } from "../../src/lib/clock.ts";
import { silentLogger } from "../../src/lib/log.ts";
import { openNative } from "../../src/snapshots/native.ts";
import { openOverlayfs } from "../../src/snapshots/overlayfs.ts";
import { removeFolder, temporaryFolder } from "../support/processes.ts";
import { SNAPSHOTTER_CASES } from "../support/snapshotter-suite.ts";

/** containerd's case to our title. */
const REFERENCE_CASES: Readonly<Record<string, string>> = {
  Basic: "layers on layers",
  StatActive: "an active snapshot's info",
  StatComitted: "a committed snapshot's info",
  TransitivityTest: "parents of parents",
  PreareViewFailingtest: "a key twice",
  Update: "labels change, the rest does not",
  Remove: "keys and names are free again",
  Walk: "filters choose",
  LayerFileupdate: "a file of a lower layer is replaced",
  RemoveDirectoryInLowerLayer: "a folder of a lower layer is removed",
  Chown: "owners change",
  DirectoryPermissionOnCommit: "modes of folders outlive the commit",
  RemoveIntermediateSnapshot: "a layer between two others stays",
  DeletedFilesInChildSnapshot: "files removed in a child",
  MoveFileFromLowerLayer: "a file of a lower layer is moved",
  ViewReadonly: "a view cannot be written",
  StatInWalk: "infos can be asked for while walking",
  CloseTwice: "closing twice",
  RootPermission: "the root's mode is 0755 whatever the umask",
  Rename: "files are moved and replaced",
  "128LayersMount": "128 layers",
};

test("every case of the reference is one of ours", () => {
  const missing = Object.values(REFERENCE_CASES).filter((title) => !(title in SNAPSHOTTER_CASES));
  expect(missing).toEqual([]);
});

const SNAPSHOTTERS = { overlayfs: openOverlayfs, native: openNative } as const;

for (const name of ["overlayfs", "native"] as const) {
  describe(name, () => {
    test.each(Object.entries(SNAPSHOTTER_CASES))("%s", async (_title, run) => {
      const folder = temporaryFolder();
      const [root, work] = [join(folder, "r"), join(folder, "work")];
      mkdirSync(work);
      const snapshotter = SNAPSHOTTERS[name]({ root, clock: systemClock(), logger: silentLogger });
      try {
        await run({ name, snapshotter, root, work });
      } finally {
        await snapshotter.close();
        removeFolder(folder);
      }
    });
  });
}
