/** The executable by itself: on another machine there is no source beside it. */
import { afterAll, expect, test } from "bun:test";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { ctr } from "../support/commands.ts";
import { until } from "../support/containers.ts";
import { accepts, bunkerdCommand, type Daemon } from "../support/daemons.ts";
import { removeFolder, run, start, temporaryFolder } from "../support/processes.ts";
import { buildImage, tar } from "../support/tar.ts";

const REPOSITORY = join(import.meta.dir, "../..");
const folder = temporaryFolder();
afterAll(() => removeFolder(folder));

test("it unpacks an image where its source is out of sight", async () => {
  const [program] = bunkerdCommand();
  const [empty, log] = [join(folder, "empty"), join(folder, "log")];
  mkdirSync(empty);
  const config = join(folder, "config.toml");
  const socket = join(folder, "d.sock");
  writeFileSync(
    config,
    `version = 2\nroot = "${folder}/root"\nstate = "${folder}/state"\n[grpc]\naddress = "${socket}"\n`,
  );
  const hidden = ["src", "gen", "node_modules"].map(
    (name) => `mount --bind ${empty} ${join(REPOSITORY, name)}`,
  );
  const script = [...hidden, `exec "$0" serve --config ${config} > ${log} 2>&1`].join(" && ");
  const child = start(
    ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, program ?? ""],
    {},
  );
  try {
    await until(
      () => readFileSync(log, "utf8"),
      () => accepts(socket),
    );
    const pack = (layer: Buffer) => ({
      blob: gzipSync(layer),
      mediaType: "application/vnd.oci.image.layer.v1.tar+gzip",
    });
    const archive = join(folder, "image.tar");
    writeFileSync(
      archive,
      buildImage("docker.io/library/a:1", [tar([{ name: "f", data: "x" }])], pack).archive,
    );
    const imported = await ctr("2.1", { socket, folder } as Daemon, "images", "import", "--local", archive);
    expect({ code: imported.code, stderr: imported.stderr }).toEqual({ code: 0, stderr: "" });
  } finally {
    child.kill("SIGKILL");
    await child.exited;
  }
});

test("it runs nothing that lies in the folder where it is started", async () => {
  const here = join(folder, "here");
  mkdirSync(here);
  writeFileSync(join(here, "bunfig.toml"), 'preload = ["./preload.ts"]\n');
  writeFileSync(join(here, "preload.ts"), 'process.stdout.write("preloaded\\n");\n');
  writeFileSync(join(here, ".env"), "PATH=/nowhere\n");
  const [program = ""] = bunkerdCommand();
  const { code, stdout, stderr } = await run([program, "version"], { cwd: here });
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  expect(stdout).toMatch(/^bunkerd \S+ v\S+( [0-9a-f]+)?\n$/);
});
