import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { renameSync, rmSync, statSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { until } from "../../test/support/containers.ts";
import { podText } from "../../test/support/pod-text.ts";
import { removeFolder, temporaryFolder } from "../../test/support/processes.ts";
import { ManifestReader } from "./manifests.ts";

let folder = "";
beforeEach(() => {
  folder = temporaryFolder();
});
afterEach(() => removeFolder(folder));

describe("a directory of manifests", () => {
  const write = (name: string, text: string): void => writeFileSync(join(folder, name), text);
  const scriptOf = (reader: ManifestReader, name: string): string | undefined =>
    reader.read().wanted.get(`default/${name}`)?.file.spec.containers[0]?.command?.at(-1);

  test("a file that has not changed is not read again; one that has is, whatever its size and time of change", async () => {
    write("a.yaml", podText("a", { app: "one" }));
    const reader = new ManifestReader(folder);
    const fileOf = () => reader.read().wanted.get("default/a")?.file;
    let before = fileOf();
    await until("the file has settled", () => {
      const last = before;
      before = fileOf();
      return before === last;
    });
    write("a.yaml", podText("a", { app: "two" }));
    expect(scriptOf(reader, "a")).toBe("two");
    // Of the same size and within the same moment.
    for (const word of ["six", "ten", "one"]) {
      write("a.yaml", podText("a", { app: word }));
      expect(scriptOf(reader, "a")).toBe(word);
    }
    expect(fileOf()).not.toBe(before as never);
    // Of the same size, looked at long after it has changed.
    await until("it has settled", () => Date.now() - statSync(join(folder, "a.yaml")).ctimeMs > 200);
    fileOf();
    write("a.yaml", podText("a", { app: "six" }));
    await until("it has settled", () => Date.now() - statSync(join(folder, "a.yaml")).ctimeMs > 200);
    expect(scriptOf(reader, "a")).toBe("six");
    // Replaced by another file with the older file's time.
    write("b", podText("a", { app: "two" }));
    utimesSync(join(folder, "b"), 1, 1);
    renameSync(join(folder, "b"), join(folder, "a.yaml"));
    expect(scriptOf(reader, "a")).toBe("two");
    rmSync(join(folder, "a.yaml"));
    expect(reader.read().wanted.size).toBe(0);
  });

  test("a file that is broken stays so until it changes; a pod stands in one file", async () => {
    write("a.yaml", "kind: Pud");
    write("b.yaml", podText("b", { app: "one" }));
    write("c.yaml", podText("b", { app: "two" }));
    const reader = new ManifestReader(folder);
    for (let round = 0; round < 2; round++) {
      const { wanted, broken } = reader.read();
      expect([...wanted.values()].map(({ source }) => source)).toEqual([join(folder, "b.yaml")]);
      expect([...broken.keys()]).toEqual([join(folder, "a.yaml"), join(folder, "c.yaml")]);
    }
    write("a.yaml", podText("a", { app: "one" }));
    expect([...reader.read().wanted.keys()]).toEqual(["default/a", "default/b"]);
    // An editor that begins to write.
    write("a.yaml", "");
    expect([...reader.read().broken.values()][0]).toBe(`${join(folder, "a.yaml")}: is empty`);
  });
});
