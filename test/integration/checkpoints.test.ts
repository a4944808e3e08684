/**
 * Checkpoints of tasks in the content, and tasks restored from there, by ctr on containerd 2.1 and on bunkerd. CRIU does not run on every kernel:
 * its part is played by a runc that leaves a file where it would, and starts anew where it finds that file.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Layout } from "../support/archives.ts";
import { ctrIn, endNamespaces, leftovers, newNamespace, succeeding } from "../support/containers.ts";
import { COLLECTION_WHEN_ASKED, type Daemon, daemonKinds, startDaemon } from "../support/daemons.ts";
import { debianPackage } from "../support/debian.ts";
import { removeFolder, temporaryFolder } from "../support/processes.ts";
import { tar } from "../support/tar.ts";

const folder = temporaryFolder();
let archive: Buffer;
/** Media types in the checkpoint of each daemon. */
const types: string[][] = [];

beforeAll(async () => {
  const busybox = readFileSync(join(await debianPackage("bookworm", "busybox-static"), "bin/busybox"));
  const layer = tar([
    ...["bin/", "dev/", "proc/", "sys/", "tmp/"].map((name) => ({ name, type: "5", mode: 0o755 })),
    { name: "bin/busybox", mode: 0o755, data: busybox },
    ...["sh", "sleep"].map((name) => ({ name: `bin/${name}`, type: "2", link: "busybox" })),
  ]);
  const layout = new Layout();
  const image = layout.image([layer], "amd64");
  archive = layout.archive([{ ...image, annotations: { "io.containerd.image.name": "example.org/box:1" } }]);
});
afterAll(() => {
  endNamespaces();
  removeFolder(folder);
});

/** A runc of its own for the daemon's folder: `taken` and `restored` tell what it was asked for. */
function writeRunc({ folder: at }: Daemon): string {
  const path = join(at, "runc");
  const script = `#!/bin/sh
verb=; image=; bundle=; pid=; leave=; globals=; last=
while [ $# -gt 0 ]; do
  case "$1" in
    --image-path) image=$2; shift;;
    --bundle) bundle=$2; shift;;
    --pid-file) pid=$2; shift;;
    --root|--log|--log-format) [ -n "$verb" ] || globals="$globals $1 $2"; shift;;
    --leave-running) leave=yes;;
    checkpoint|restore) verb=$1;;
    *) [ "\${1#--}" != "$1" ] || last=$1;;
  esac
  shift
done
if [ "$verb" = checkpoint ]; then
  mkdir -p "$image/deeper" && echo "memory of $last" > "$image/pages-1.img" && ln -s ../pages-1.img "$image/deeper/link"
  echo "$image" >> ${at}/taken
  [ -n "$leave" ] || runc $globals kill "$last" KILL
elif [ "$verb" = restore ]; then
  cat "$image/deeper/link" >> ${at}/restored || exit 1
  exec runc $globals run --detach --bundle "$bundle" --pid-file "$pid" "$last"
fi
`;
  // What is neither is runc's.
  const choose = `#!/bin/sh\nfor word; do case "$word" in checkpoint|restore) exec ${path}-criu "$@";; esac; done\nexec runc "$@"\n`;
  writeFileSync(`${path}-criu`, script, { mode: 0o755 });
  writeFileSync(path, choose, { mode: 0o755 });
  return path;
}

test.each(daemonKinds("containerd-2.1", "bunkerd").map((kind) => [kind] as const))(
  "%s: a checkpoint is an image, of which a task is restored",
  async (kind) => {
    await using daemon = await startDaemon(kind, { config: COLLECTION_WHEN_ASKED });
    const namespace = newNamespace();
    const ctr = ctrIn("2.1", daemon, namespace);
    const runc = writeRunc(daemon);
    writeFileSync(join(daemon.folder, "box.tar"), archive);
    const ok = succeeding(ctr);
    await ok("images", "import", "--local", "box.tar");
    const forever = ["/bin/sh", "-c", "while :; do sleep 0.1; done"];
    await ok("run", "-d", "--runc-binary", runc, "example.org/box:1", "web", ...forever);
    await ok("containers", "checkpoint", "--task", "--image", "web", "example.org/saved:1");
    expect(await ok("tasks", "ls")).toMatch(/^web +\d+ +RUNNING/m);
    const [taken = ""] = readFileSync(join(daemon.folder, "taken"), "utf8").split("\n");
    expect(existsSync(taken)).toBe(false);

    const index = (await ok("images", "ls", "name==example.org/saved:1")).match(/sha256:\w+/)?.[0] ?? "";
    const { manifests } = JSON.parse(await ok("content", "get", index)) as {
      manifests: { mediaType: string; digest: string; size: number }[];
    };
    const byType = Object.fromEntries(
      manifests.map(({ mediaType, digest }) => [mediaType.replace(/^application\/vnd\./, ""), digest]),
    );
    types.push(Object.keys(byType).sort());
    const images = await ok("content", "get", byType["containerd.container.criu.checkpoint.criu.tar"] ?? "");
    expect(images).toContain("memory of web");
    expect(images).toContain("deeper/link");
    const config = byType["containerd.container.checkpoint.config.v1+proto"] ?? "";
    expect(await ok("content", "get", config)).toContain(
      "types.containerd.io/opencontainers/runtime-spec/1/Spec",
    );

    await ok("containers", "restore", "--live", "again", "example.org/saved:1");
    expect(await ok("tasks", "ls")).toMatch(/^again +\d+ +RUNNING/m);
    expect(readFileSync(join(daemon.folder, "restored"), "utf8")).toBe("memory of web\n");

    for (const id of ["web", "again"]) {
      await ctr("tasks", "rm", "-f", id);
      await ok("containers", "rm", id);
    }
    expect(leftovers(daemon.folder, namespace)).toEqual([]);
  },
  60_000,
);

test("both keep the same kinds of blobs", () => {
  for (const each of types) expect(each).toEqual(types[0] ?? []);
});
