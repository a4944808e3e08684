/**
 * `ctr` of Debian 12 (1.6) and of sid (2.1). Each script runs on containerd 2.1 and on bunkerd in the same run, and what
 * ctr prints must be the same, errors included; patterns make sure that the reference did what the step is for.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { CTR_VERSIONS, ctr } from "../support/commands.ts";
import {
  containerdProgram,
  type Daemon,
  daemonKinds,
  startDaemon,
  type Version,
} from "../support/daemons.ts";
import { type Finished, linesOf, start } from "../support/processes.ts";

/** ctr's arguments, and what its output must show on every daemon. */
type Step = readonly [args: string, shows?: RegExp];

/** The flags that shape the spec, which both versions know. */
const FLAGS =
  "--rootfs --cwd /tmp --annotation a=b --read-only --no-pivot --with-ns network:/proc/1/ns/net --allow-new-privs=true " +
  "--device /dev/null --apparmor-profile p --pid-file pid --memory-limit 100000000 --cpu-quota 1000 --cpu-period 10000 --cap-add CAP_SYS_ADMIN --cap-drop CAP_KILL --seccomp --rootfs-propagation private";

/** Those that 2.1 adds. */
const FLAGS_OF_2_1 =
  "--rootfs --hostname h --user 0:0 --runc-binary /bin/runc --runc-root /run/r --sandbox pod";

const SCRIPTS: Readonly<Record<string, readonly Step[]>> = {
  version: [["version", /Server:/]],
  namespaces: [
    ["namespaces ls", /NAME LABELS/],
    ["namespaces create alpha", /code 0/],
    ["ns c beta colour=red", /code 0/],
    ["namespaces ls -q", /alpha\nbeta/],
    ["namespaces ls", /beta colour=red/],
    ["namespaces label beta colour=blue size=big", /code 0/],
    ["namespaces ls", /beta colour=blue,size=big/],
    ["namespaces label beta size=", /code 0/],
    ["namespaces ls", /beta colour=blue *\n/],
    ["namespaces create alpha", /already exists/],
    ["namespaces create -- -bad", /invalid argument/],
    ["namespaces create a/b", /invalid argument/],
    [`namespaces create ${"n".repeat(77)}`, /invalid argument/],
    [`namespaces create ${"n".repeat(76)}`, /code 0/],
    [`namespaces rm ${"n".repeat(76)}`, /code 0/],
    [`namespaces create gamma key=${"v".repeat(4094)}`, /invalid argument/],
    ["namespaces label missing a=b", /code 0/],
    ["namespaces ls", /missing a=b/],
    ["namespaces rm missing", /code 0/],
    ["-n alpha containers create --config spec.json inside", /code 0/],
    ["namespaces rm alpha", /failed precondition/],
    ["-n alpha containers rm inside", /code 0/],
    ["namespaces rm alpha beta", /alpha\nbeta/],
    ["namespaces rm --cgroup alpha", /alpha/],
    ["namespaces rm", /must|at least|help|code/],
    ["namespaces ls", /NAME/],
  ],
  containers: [
    ["containers ls", /CONTAINER +IMAGE +RUNTIME/],
    ["containers create --config spec.json web", /code 0/],
    [
      "containers create --config spec.json --label app=db --label tier=back --runtime io.containerd.runtime.x.v1 db",
    ],
    ["c create --config spec.json web", /container "web": already exists/],
    ["c create --config spec.json a/b", /invalid argument/],
    ["c create --config spec.json ..", /invalid argument/],
    [`c create --config spec.json ${"c".repeat(77)}`, /invalid argument/],
    [`c create --config spec.json ${"c".repeat(76)}`, /code 0/],
    [`c create --config spec.json --label big=${"v".repeat(4094)} web2`, /invalid argument/],
    ["c create --config missing.json web3", /missing.json/],
    ["containers ls", /db +- +io.containerd.runtime.x.v1/],
    ["containers ls -q", /\ndb\nweb\n/],
    ["c ls -q id==web", /^web$/m],
    ["c ls -q id~=^w", /^web$/m],
    ["c ls -q labels.app==db", /^db$/m],
    ['c ls -q labels."app"==db', /^db$/m],
    ["c ls -q labels.tier", /^db$/m],
    ["c ls -q id!=web", /^db$/m],
    ["c ls -q labels.app==db,id==web", /code 0/],
    ["c ls -q labels.app==db id==web", /db\nweb/],
    ["c ls -q runtime.name==io.containerd.runtime.x.v1", /^db$/m],
    ["c ls -q image==none", /code 0/],
    ["c ls -q nonsense==1", /code 0/],
    ["c ls id=web", /invalid argument/],
    ["c ls ==", /invalid argument/],
    ['c ls labels."x', /invalid argument/],
    ["containers info web", /"ociVersion"/],
    ["containers info --spec web", /"hard": 18446744073709551615/],
    ["containers info db", /"tier": "back"/],
    ["containers info missing", /container "missing" in namespace "default": not found/],
    ["containers label web k=v other=w", /k=v/],
    ["containers info web", /"k": "v"/],
    ["containers label web k=", /other=w/],
    ["containers info web", /"other": "w"/],
    ["containers label missing k=v", /not found/],
    [`containers label web k=${"v".repeat(4096)}`, /invalid argument/],
    ["-n elsewhere containers ls -q", /code 0/],
    ["-n elsewhere containers info web", /namespace "elsewhere": not found/],
    ["-n in/valid containers ls", /invalid argument/],
    ["-n elsewhere containers create --config spec.json web", /code 0/],
    ["-n elsewhere containers rm web", /code 0/],
    [
      "c create --rootfs --net-host --privileged --env A=b --mount type=bind,src=/a,dst=/b,options=rbind:ro --tty . shell top",
    ],
    ["c info shell", /"top"/],
    ["c ls -q", /shell/],
    [`c create ${FLAGS} . flags top`, /code 0/],
    ["c info flags", /"a": "b"/],
    ["containers rm web db shell flags", /code 0/],
    ["containers delete --keep-snapshot missing", /not found/],
    [`c rm ${"c".repeat(76)}`, /code 0/],
    ["containers ls -q", /^code 0\n---\n\n?$/m],
    ["namespaces rm elsewhere", /elsewhere/],
  ],
  leases: [
    ["leases ls", /ID +CREATED AT +LABELS/],
    ["leases create --id one", /^one$/m],
    ["leases create --id two --expires 48h colour=red", /^two$/m],
    ["leases create --id three -x 0 colour=red size=big", /^three$/m],
    ["leases create", /<lease>/],
    ["leases create --id one", /lease "one": already exists/],
    ["leases create --id a/b", /code/],
    ["leases ls --quiet id==one", /^one$/m],
    ["leases ls -q labels.colour==red", /three\ntwo/],
    ["leases ls id==two", /containerd.io\/gc.expire=<time>/],
    ["leases ls id==three", /colour=red,size=big/],
    ["leases ls id", /code/],
    ["leases ls id=one", /invalid argument/],
    ["leases rm one", /^one$/m],
    ["leases rm --sync two three", /two\nthree/],
    ["leases rm one", /lease "one": not found/],
    ["leases ls -q id==one", /code 0/],
    ["namespaces rm default", /code/],
  ],
  connection: [
    ["--timeout 5s --connect-timeout 5s containers ls", /CONTAINER/],
    ["containers", /create/],
    ["containers create", /code 1/],
    ["containers info", /must be provided/],
  ],
};

/** 2.1 alone knows these. */
const SCRIPTS_OF_2_1: Readonly<Record<string, readonly Step[]>> = {
  sandboxes: [
    ["sandboxes ls", /ID +CREATED +RUNTIME/],
    ["sandboxes ls --filters id==x", /ID/],
    ["sandboxes ls --filters id=x", /invalid argument/],
    ["sandboxes rm missing", /not found/],
  ],
  deprecations: [["deprecations list", /code 0/]],
  flags: [
    [`c create ${FLAGS_OF_2_1} . flags top`, /code 0/],
    ["c info flags", /"SandboxID": "pod"/],
    ["c rm flags", /code 0/],
  ],
  info: [["info", /"uuid"/]],
};

const SPEC = {
  ociVersion: "1.2.0",
  process: {
    user: { uid: 0, gid: 0 },
    args: ["sh"],
    cwd: "/",
    rlimits: [{ type: "RLIMIT_NOFILE", hard: 0, soft: 1024 }],
  },
  root: { path: "rootfs" },
  hostname: "web",
};

function writeSpec(daemon: Daemon): void {
  const text = JSON.stringify(SPEC).replace('"hard":0', '"hard":18446744073709551615');
  writeFileSync(join(daemon.folder, "spec.json"), text);
}

/** What differs from run to run: folders, times, generated ids, the order of Go's maps and the width of columns. */
function normalise(result: Finished, daemon: Daemon): string {
  const text = `code ${result.code}\n---\n${result.stdout}\n${result.stderr}`
    .replaceAll(daemon.folder, "<folder>")
    .replaceAll(/\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?(?:Z| \+0000 UTC)/g, "<time>")
    .replaceAll(/UUID: \S+/g, "UUID: <uuid>")
    .replaceAll(/"(uuid|pid|pidns)": [^,\n]+/g, '"$1": <own>')
    .replaceAll(/\b\d{1,10}-[\w-]{4}(?=\s)/g, "<lease>")
    .replaceAll(/(Version|Revision): .*/g, "$1: <version>")
    .replaceAll(/(?:\n+WARNING: (?:version|revision) mismatch)+\n*|\n+$/g, "\n")
    .replaceAll(/(?<=\S) +/g, " ");
  return text
    .split("\n")
    .map((line) => line.replace(/\S+=\S*(?:,\S+=\S*)+/g, (list) => list.split(",").sort().join(",")))
    .join("\n");
}

async function play(version: Version, daemon: Daemon, script: readonly Step[]): Promise<string[]> {
  const printed: string[] = [];
  for (const [args, shows] of script) {
    const text = normalise(await ctr(version, daemon, ...args.split(" ")), daemon);
    printed.push(`$ ctr ${args}\n${text}`);
    if (shows !== undefined)
      expect(printed.at(-1)?.replace(/^.*\n/, "") ?? "", `ctr ${args} on ${daemon.kind}`).toMatch(shows);
  }
  return printed;
}

const kinds = daemonKinds("containerd-2.1", "bunkerd");

describe.each(CTR_VERSIONS.map((version) => [version] as const))("ctr %s", (version) => {
  const daemons: Daemon[] = [];
  beforeAll(async () => {
    for (const kind of kinds) {
      const daemon = await startDaemon(kind);
      writeSpec(daemon);
      daemons.push(daemon);
    }
  });
  afterAll(async () => {
    for (const daemon of daemons) await daemon.stop();
  });

  const scripts = version === "2.1" ? { ...SCRIPTS, ...SCRIPTS_OF_2_1 } : SCRIPTS;
  test.each(Object.entries(scripts))("%s: prints what it prints with containerd", async (_name, script) => {
    const transcripts = [];
    for (const daemon of daemons) transcripts.push(await play(version, daemon, script));
    for (const transcript of transcripts.slice(1)) expect(transcript).toEqual(transcripts[0] ?? []);
  });

  test("plugins ls names only plugins that run, by containerd's types and ids", async () => {
    const rows: string[][] = [];
    for (const daemon of daemons) {
      const listed = await ctr(version, daemon, "plugins", "ls");
      expect(listed.stderr).toBe("");
      expect(listed.stdout).toMatch(/TYPE +ID +PLATFORMS +STATUS/);
      const found = listed.stdout
        .split("\n")
        .slice(1)
        .filter((line) => line !== "")
        .map((line) => line.split(/ +/));
      rows.push(found.map(([type, id]) => `${type} ${id}`));
      if (daemon.kind === "bunkerd") expect(found.filter(([, , , status]) => status === "error")).toEqual([]);
      const quiet = await ctr(version, daemon, "plugins", "ls", "-q");
      expect(quiet.stdout.trim().split("\n")).toHaveLength(found.length);
      const detailed = await ctr(version, daemon, "plugins", "ls", "-d", "id==containers");
      expect(detailed.stdout).toMatch(/Type: +io\.containerd\.grpc\.v1\nID: +containers/);
      expect((await ctr(version, daemon, "plugins", "ls", "id=x")).stderr).toMatch(/invalid argument/);
    }
    const [reference = [], ours = []] = rows;
    // The servers are plugins of containerd 2.3 and later; CRI is off in the reference, which would listen on a port.
    const servers = ["grpc", "ttrpc"].map((id) => `io.containerd.server.v1 ${id}`);
    const cri = ["images", "runtime"].map((id) => `io.containerd.cri.v1 ${id}`);
    // Mounts are managed from containerd 2.2 on.
    const mounts = ["mount-handler.v1 loop", "mount-manager.v1 bolt", "grpc.v1 mounts"];
    const newer = mounts.map((name) => `io.containerd.${name}`);
    // The tests' containerd does without it.
    const opt = "io.containerd.internal.v1 opt";
    const known = [...reference, ...servers, ...newer, ...cri, "io.containerd.grpc.v1 cri", opt];
    expect(ours.filter((row) => !known.includes(row))).toEqual([]);
    if (kinds.includes("bunkerd")) expect(ours.length).toBeGreaterThan(5);
  });

  for (const kind of kinds) {
    test(`events prints a create as it happens (${kind})`, async () => {
      const daemon = daemons.find((each) => each.kind === kind) as Daemon;
      const program = await containerdProgram(version, "ctr");
      const watching = start([program, "--address", daemon.socket, "events"], {
        stdout: "pipe",
        stderr: "inherit",
      });
      const seen = linesOf(watching.stdout);
      try {
        // ctr prints nothing once it is subscribed: ping until the first event comes through.
        let first: string | undefined;
        const reading = seen.next().then((line) => {
          first = line.value as string;
        });
        for (let n = 0; first === undefined; n++) {
          await ctr(
            version,
            daemon,
            "-n",
            "watched",
            "containers",
            "create",
            "--config",
            "spec.json",
            `ping-${n}`,
          );
          await Promise.race([reading, Bun.sleep(50)]);
        }
        expect(first).toMatch(/\+0000 UTC \S+ \/\S+ \{/);
        await ctr(version, daemon, "-n", "watched", "containers", "create", "--config", "spec.json", "seen");
        let line = "";
        for await (line of seen) if (line.includes('"seen"')) break;
        expect(line).toMatch(
          /^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+ \+0000 UTC watched \/containers\/create \{"id":"seen","runtime":\{"name":"io.containerd.runc.v2"/,
        );
      } finally {
        watching.kill("SIGKILL");
        await watching.exited;
        const left = (await ctr(version, daemon, "-n", "watched", "c", "ls", "-q")).stdout.trim().split("\n");
        await ctr(version, daemon, "-n", "watched", "c", "rm", ...left);
      }
    });
  }
});
