/**
 * Walks through every command of crictl, built outside the repository, on containerd and on bunkerd, and compares what it prints:
 *
 *     unshare --net --mount --propagation private bun test/conformance/cri/crictl.ts CRICTL
 *
 * Ids, times, folders and addresses that a run makes up are left out. The transcripts go to `/tmp/crictl-<kind>.txt`, what
 * differs to `test/conformance/cri/results/crictl.diff`.
 */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { type DaemonKind, startDaemon } from "../../support/daemons.ts";
import { run, temporaryFolder } from "../../support/processes.ts";
import { pushImage, startRegistry } from "../../support/registry.ts";
import { buildImage, tar } from "../../support/tar.ts";
import { CrictlSession, type Step } from "./crictl-session.ts";
import { CGROUP_PARENT, type Private, walk } from "./crictl-walk.ts";
import { startNode } from "./node.ts";

const PRIVATE_PORT = 5001;
const CREDENTIALS = "kubelet:secret";

async function startPrivate(): Promise<Private & AsyncDisposable> {
  const folder = temporaryFolder();
  const path = join(folder, "htpasswd");
  const [name = "", password = ""] = CREDENTIALS.split(":");
  writeFileSync(path, `${name}:${await Bun.password.hash(password, { algorithm: "bcrypt", cost: 4 })}\n`);
  const registry = await startRegistry(folder, PRIVATE_PORT, { auth: { htpasswd: { realm: "r", path } } });
  const pack = (blob: Buffer) => ({ blob, mediaType: "application/vnd.oci.image.layer.v1.tar" });
  const built = buildImage("secret", [tar([{ name: "secret", data: "1" }])], pack, {});
  const authorization = `Basic ${Buffer.from(CREDENTIALS).toString("base64")}`;
  await pushImage(registry, "secret", "1", built, { authorization });
  return {
    image: `${registry.host}/secret:1`,
    credentials: CREDENTIALS,
    [Symbol.asyncDispose]: () => registry.stop(),
  };
}

async function stepsOf(crictl: string, kind: DaemonKind): Promise<readonly Step[]> {
  const daemon = await startDaemon(kind, node.daemonOptions(kind));
  const session = new CrictlSession(crictl, daemon);
  try {
    await walk(session, secret);
  } finally {
    writeFileSync(`/tmp/crictl-${kind}.txt`, session.steps.map(textOf).join("\n"));
    writeFileSync(`/tmp/crictl-${kind}.daemon.log`, daemon.log());
    await daemon.stop();
    await removeCgroups();
  }
  return session.steps;
}

/** The pods' parent, which neither daemon made for itself. */
async function removeCgroups(): Promise<void> {
  await run(["sh", "-c", `find /sys/fs/cgroup -depth -path '*${CGROUP_PARENT}*' -type d -exec rmdir {} +`]);
}

function textOf({ command, lines }: Step): string {
  return `$ crictl ${command}\n${lines.join("\n")}\n`;
}

/** Undefined if both printed the same. */
async function difference(theirs: Step, ours: Step): Promise<string | undefined> {
  const isMissing = ({ lines }: Step) => lines.some((line) => line.includes("code = Unimplemented"));
  if (isMissing(theirs) && !isMissing(ours)) {
    const code = ours.lines.find((line) => line.startsWith("code "));
    return `$ crictl ${ours.command}\n the reference has no such method; ${code ?? "code 0"} here, with an answer\n`;
  }
  const files = [theirs, ours].map((step, index) => {
    const path = join(folder, String(index));
    writeFileSync(path, textOf(step));
    return path;
  });
  const { code, stdout } = await run(["diff", "--unified=2", ...files]);
  const lines = stdout.split("\n").slice(2);
  return code === 0 ? undefined : `$ crictl ${ours.command}\n${lines.join("\n")}`;
}

const [crictl] = process.argv.slice(2);
if (crictl === undefined) throw new Error("usage: crictl.ts CRICTL");
const folder = temporaryFolder();
await using node = await startNode();
await using secret = await startPrivate();
const theirs = await stepsOf(crictl, "containerd-2.1");
const ours = await stepsOf(crictl, "bunkerd");
const differences: string[] = [];
for (const [index, step] of ours.entries()) {
  const found = await difference(theirs[index] as Step, step);
  if (found !== undefined) differences.push(found);
}
writeFileSync(join(import.meta.dir, "results/crictl.diff"), differences.join("\n"));
process.stdout.write(`${ours.length} calls, of which ${differences.length} differ\n`);
