/**
 * `make proto-compat`: is `proto/` wire- and JSON-compatible with what containerd and Kubernetes ship? Upstream's files
 * come from Debian's packages, are laid out as the modules their imports expect in a temporary folder, and `buf breaking`
 * compares ours against them. Nothing of them enters the repository.
 */
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { debianPackage } from "./debian.ts";

const ROOT = join(import.meta.dir, "../..");
const PROTO = join(ROOT, "proto");
const GO = "usr/share/gocode/src";

/** Where in which package upstream's declarations lie, and under which path others import them. */
const UPSTREAM = [
  { package: "golang-github-containerd-containerd-api-dev", path: "github.com/containerd/containerd/api" },
  { package: "golang-k8s-cri-api-dev", path: "k8s.io/cri-api/pkg/apis/runtime/v1" },
];

/**
 * WIRE_JSON lets whole services and methods go, a server must not. Ours differ in the idempotency level on purpose:
 * read-only methods are marked, so that they can be called by GET.
 */
const CONFIG = {
  version: "v2",
  breaking: {
    use: [
      "WIRE_JSON",
      "RPC_NO_DELETE",
      "PACKAGE_NO_DELETE",
      "PACKAGE_SERVICE_NO_DELETE",
      "PACKAGE_MESSAGE_NO_DELETE",
      "PACKAGE_ENUM_NO_DELETE",
    ],
    except: ["RPC_SAME_IDEMPOTENCY_LEVEL"],
  },
};

function buf(args: readonly string[], cwd: string): { ok: boolean; output: string } {
  const { exitCode, stdout, stderr } = Bun.spawnSync([join(ROOT, "node_modules/.bin/buf"), ...args], { cwd });
  return { ok: exitCode === 0, output: `${stdout}${stderr}` };
}

function versionOf(folder: string, name: string): string {
  const changelog = readFileSync(join(folder, "usr/share/doc", name, "changelog.Debian.gz"));
  return /\(([^)]+)\)/.exec(new TextDecoder().decode(Bun.gunzipSync(changelog)))?.[1] ?? "unknown";
}

/** containerd's own option for its Go generator is not part of the wire; it would draw all of descriptor.proto in. */
function dropFieldPaths(folder: string): void {
  for (const name of readdirSync(folder, { recursive: true, encoding: "utf8" })) {
    const file = join(folder, name);
    if (name.endsWith("fieldpath.proto")) rmSync(file);
    else if (name.endsWith(".proto")) {
      const lines = readFileSync(file, "utf8").split("\n");
      writeFileSync(file, lines.filter((line) => !/fieldpath/.test(line)).join("\n"));
    }
  }
}

async function check(upstream: (typeof UPSTREAM)[number], work: string): Promise<boolean> {
  const folder = await debianPackage("sid", upstream.package);
  const against = join(work, upstream.package);
  cpSync(join(folder, GO, upstream.path), join(against, upstream.path), { recursive: true });
  dropFieldPaths(join(against, upstream.path));
  // Not in the package, and not containerd's: status.proto is the same everywhere.
  cpSync(join(PROTO, "google"), join(against, "google"), { recursive: true });
  writeFileSync(join(against, "buf.yaml"), "version: v2\n");
  const { ok, output } = buf(
    ["breaking", PROTO, "--against", against, "--config", JSON.stringify(CONFIG)],
    work,
  );
  const name = `${upstream.package} ${versionOf(folder, upstream.package)}`;
  process.stdout.write(ok ? `compatible with ${name}\n` : `NOT compatible with ${name}:\n${output}`);
  return ok;
}

const work = mkdtempSync(join(tmpdir(), "bunkerd-proto-compat-"));
let ok = true;
try {
  for (const upstream of UPSTREAM) ok = (await check(upstream, work)) && ok;
} finally {
  rmSync(work, { recursive: true, force: true });
}
process.exit(ok ? 0 : 1);
