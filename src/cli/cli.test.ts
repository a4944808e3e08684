import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { VERSION } from "./version.ts";

const repository = join(import.meta.dir, "../..");
let folder = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "bunkerd-cli-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

async function bunkerd(...args: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  const child = Bun.spawn([process.execPath, join(repository, "src/main.ts"), ...args], {
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  });
  const [stdout, stderr, code] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  return { code, stdout, stderr };
}

function config(text: string): string {
  const path = join(folder, "config.toml");
  writeFileSync(path, text);
  return path;
}

test("the version is package.json's, by command and by flag", async () => {
  const manifest = JSON.parse(readFileSync(join(repository, "package.json"), "utf8")) as { version: string };
  expect(VERSION).toBe(manifest.version);
  const line = `bunkerd github.com/bunkerd/bunkerd v${VERSION}\n`;
  for (const args of [["version"], ["--version"], ["-v"]]) {
    expect(await bunkerd(...args)).toEqual({ code: 0, stdout: line, stderr: "" });
  }
});

test("help names every command and option", async () => {
  const { code, stdout, stderr } = await bunkerd("--help");
  expect([code, stderr]).toEqual([0, ""]);
  for (const word of [
    "serve",
    "config",
    "publish",
    "version",
    "db",
    "openapi",
    "--config",
    "--address",
    "--root",
    "--state",
    "--log-level",
    "SIGHUP",
    "Exit codes",
  ]) {
    expect(stdout).toContain(word);
  }
  expect((await bunkerd("config", "--help")).stdout).toContain("migrate");
  expect((await bunkerd("db", "--help")).stdout).toContain("compact");
  expect((await bunkerd("help", "db")).stdout).toContain("compact");
  for (const words of [["serve"], ["config", "check"], ["gc"]])
    expect((await bunkerd(...words, "--help")).stdout).toContain("--state <dir>");
});

describe("what is no command line ends in one line and code 2", () => {
  test.each([
    [["confg"], 'bunkerd: unknown command "confg", did you mean "config"?\n'],
    [["zzzzzz"], 'bunkerd: unknown command "zzzzzz"\n'],
    [["serve", "now"], 'bunkerd: unknown command "now"\n'],
    [["--rot", "/x"], "bunkerd: unknown option '--rot' (Did you mean --root?)\n"],
    [["config", "chek"], "bunkerd: unknown command 'chek' (Did you mean check?)\n"],
    [
      ["--log-level", "loud"],
      /^bunkerd: option '-l, --log-level <level>' argument 'loud' is invalid\. .*\n$/,
    ],
    [["publish"], "bunkerd: required option '--topic <topic>' not specified\n"],
    [["db", "check"], "bunkerd: missing required argument 'FILE'\n"],
  ])("%p", async (args, message) => {
    const { code, stdout, stderr } = await bunkerd(...args);
    expect([code, stdout]).toEqual([2, ""]);
    if (typeof message === "string") expect(stderr).toBe(message);
    else expect(stderr).toMatch(message);
  });
});

describe("what fails ends in one line and code 1", () => {
  test.each([
    [
      ["serve", "--config", "/nonexistent/c.toml"],
      "bunkerd: open /nonexistent/c.toml: no such file or directory\n",
    ],
    [
      ["config", "dump", "-c", "/nonexistent/c.toml"],
      "bunkerd: open /nonexistent/c.toml: no such file or directory\n",
    ],
    [["--root", "/x", "--state", "/x"], "bunkerd: root and state must be different paths\n"],
  ])("%p", async (args, message) => {
    expect(await bunkerd(...args)).toEqual({ code: 1, stdout: "", stderr: message });
  });
});

describe("config", () => {
  test("default prints what loads without a problem", async () => {
    const { stdout } = await bunkerd("config", "default");
    expect(await bunkerd("config", "check", "--config", config(stdout))).toEqual({
      code: 0,
      stdout: "1 file: 0 errors, 0 warnings\n",
      stderr: "",
    });
  });

  test("dump knows flags, before and behind the command, and origins", async () => {
    const path = config('version = 2\nroot = "/r"\n[grpc]\naddress = "/a.sock"\n');
    const { stdout } = await bunkerd(
      "-c",
      path,
      "--state",
      "/s",
      "config",
      "dump",
      "--origins",
      "-a",
      "/flag.sock",
    );
    expect(stdout).toContain(`root = "/r"  # ${path}: root\n`);
    expect(stdout).toContain('state = "/s"  # --state\n');
    expect(stdout).toContain('address = "/flag.sock"  # --address\n');
  });

  test("migrate prints the settings alone", async () => {
    const path = config('version = 2\n[metrics]\naddress = "127.0.0.1:1338"\n');
    const { stdout } = await bunkerd("config", "migrate", "-c", path);
    expect(stdout).toBe(
      'version = 4\n\n[plugins]\n\n  [plugins."io.containerd.server.v1.metrics"]\n    address = "127.0.0.1:1338"\n',
    );
  });

  test("check tells every problem and fails for an error", async () => {
    const path = config(
      'version = 2\nrooot = 1\noom_score = "x"\n[plugins."io.containerd.internal.v1.tracing"]\nservice_name = "p"\n',
    );
    const { code, stdout } = await bunkerd("config", "check", "--config", path);
    expect(code).toBe(1);
    expect(stdout.split("\n")).toEqual([
      `error: ${path}: rooot: unknown key "rooot", did you mean "root"?`,
      `error: ${path}: oom_score: expected an integer, found string "x"`,
      `warning: ${path}: plugins."io.containerd.internal.v1.tracing".service_name: no effect: tracing is not built yet`,
      "1 file: 2 errors, 1 warning",
      "",
    ]);
  });
});

test("openapi prints a document", async () => {
  const { stdout } = await bunkerd("openapi");
  const document = JSON.parse(stdout) as { openapi: string; paths: Record<string, unknown> };
  expect(document.openapi).toStartWith("3.");
  expect(Object.keys(document.paths)).toContain("/containerd.services.containers.v1.Containers/Get");
});

test("a reader that has enough is no failure, a full disk is one", async () => {
  const main = join(repository, "src/main.ts");
  const shell = (script: string) => Bun.spawnSync(["bash", "-c", script, "bash", process.execPath, main]);
  const enough = shell('set -o pipefail; "$1" "$2" openapi | head -c 1');
  expect([enough.exitCode, enough.stdout.toString(), enough.stderr.toString()]).toEqual([0, "{", ""]);
  // A pipe that nobody reads from the beginning.
  const help = shell('set -o pipefail; "$1" "$2" --help | true && echo 0');
  expect([help.stdout.toString(), help.stderr.toString()]).toEqual(["0\n", ""]);
  const full = shell('"$1" "$2" config default > /dev/full');
  expect(full.exitCode).toBe(1);
  expect(full.stderr.toString()).toMatch(/^bunkerd: ENOSPC[^\n]*\n$/);
});
