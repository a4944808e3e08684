/** Real plugins of both Debian releases, in network namespaces that the test made: the "host" that has the bridges is one as well. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { PodSandboxConfigSchema, Protocol } from "#gen/runtime/v1/api_pb.ts";
import { type Networks, openNetworks, type PodNetwork, podNetwork } from "../../src/cni/networks.ts";
import type { CriConfig } from "../../src/config/config.ts";
import { CRI_RUNTIME } from "../../src/config/cri.ts";
import { silentLogger } from "../../src/lib/log.ts";
import { createNetworkNamespace, inNetworkNamespace, removeNetworkNamespace } from "../../src/linux/netns.ts";
import { debianPackage, type Suite } from "../support/debian.ts";
import { enterHostNetwork } from "../support/netns.ts";
import { output, removeFolder, temporaryFolder } from "../support/processes.ts";

const SUITES: readonly Suite[] = ["sid", "bookworm"];
const pluginFolders = new Map<Suite, string>();
let host: ReturnType<typeof enterHostNetwork>;

beforeAll(async () => {
  for (const suite of SUITES)
    pluginFolders.set(suite, join(await debianPackage(suite, "containernetworking-plugins"), "usr/lib/cni"));
  host = enterHostNetwork();
});
afterAll(() => host[Symbol.dispose]());

let folder: string;
let networks: Networks;
let sequence = 0;

beforeEach(() => {
  folder = temporaryFolder();
  mkdirSync(join(folder, "conf"));
});
afterEach(async () => {
  networks.close();
  for (const name of existsSync(join(folder, "netns")) ? readdirSync(join(folder, "netns")) : [])
    removeNetworkNamespace(join(folder, "netns", name));
  removeFolder(folder);
  await output([
    "sh",
    "-c",
    "ip -o link | sed -n 's/^[0-9]*: \\(cni[^:@]*\\).*/\\1/p' | xargs -r -n1 ip link del",
  ]);
});

type CniSettings = CriConfig["runtime"]["cni"];

function open(
  suite: Suite,
  settings: Partial<CniSettings> = {},
  handlers: CriConfig["runtime"]["containerd"]["runtimes"] = {},
): Networks {
  const { default: defaults } = CRI_RUNTIME;
  const cni = {
    ...defaults.cni,
    bin_dirs: [join(folder, "bin"), pluginFolders.get(suite) ?? ""],
    conf_dir: join(folder, "conf"),
    ...settings,
  };
  const containerd = { ...defaults.containerd, runtimes: handlers };
  return openNetworks(
    { config: { ...defaults, cni, containerd }, cacheFolder: join(folder, "cache"), timeoutMs: 30_000 },
    { logger: silentLogger },
  );
}

interface BridgeOptions {
  readonly version?: string;
  readonly subnets?: readonly string[];
  readonly more?: readonly object[];
  readonly bridge?: string;
}

/** A bridge whose addresses are kept in the test's own folder. */
function bridgeList(
  name: string,
  { version = "1.0.0", subnets = ["10.89.0.0/24"], more = [], bridge = "cni0" }: BridgeOptions = {},
): string {
  const ipam = {
    type: "host-local",
    dataDir: join(folder, "ipam"),
    ranges: subnets.map((subnet) => [{ subnet }]),
    routes: subnets.map((subnet) => ({ dst: subnet.includes(":") ? "::/0" : "0.0.0.0/0" })),
  };
  const plugin = { type: "bridge", bridge, isGateway: true, ipMasq: false, hairpinMode: true, ipam };
  return JSON.stringify({ cniVersion: version, name, plugins: [plugin, ...more] });
}

function configure(file: string, text: string): void {
  writeFileSync(join(folder, "conf", file), text);
}

function pod(
  config: Omit<MessageInitShape<typeof PodSandboxConfigSchema>, "$typeName"> = {},
  runtimeHandler = "",
): PodNetwork {
  const id = `sandbox${++sequence}`;
  const netnsPath = join(folder, "netns", id);
  createNetworkNamespace(netnsPath);
  const metadata = { name: id, namespace: "default", uid: id, attempt: 0 };
  const init: MessageInitShape<typeof PodSandboxConfigSchema> = { ...config, metadata };
  return podNetwork({ id, runtimeHandler, netnsPath, config: create(PodSandboxConfigSchema, init) });
}

/** A command in the pod's network. */
const inside = (of: PodNetwork, ...command: string[]): Promise<string> =>
  output(["nsenter", `--net=${of.netnsPath}`, "--", ...command]);

/** Addresses that are taken, interfaces on bridges, remembered attachments: what an attachment leaves behind. */
async function leftovers(): Promise<string[]> {
  const names = (path: string): string[] => (existsSync(path) ? readdirSync(path) : []);
  const taken = names(join(folder, "ipam")).flatMap((network) =>
    names(join(folder, "ipam", network)).filter((name) => /^[0-9a-f]+[.:]/.test(name)),
  );
  const veths = (await output(["ip", "-o", "link", "show", "type", "veth"]))
    .split("\n")
    .filter((line) => line !== "");
  const rules = (await output(["iptables-save"]))
    .split("\n")
    .filter((line) => /sandbox\d|10\.\d+\.0\.[2-9]/.test(line));
  return [...taken, ...veths, ...rules, ...names(join(folder, "cache", "results"))];
}

/** A program that answers like a plugin; `script` runs with CNI_COMMAND and the rest. */
function ownPlugin(name: string, script: string): void {
  mkdirSync(join(folder, "bin"), { recursive: true });
  writeFileSync(join(folder, "bin", name), `#!/bin/sh\n${script}\n`);
  chmodSync(join(folder, "bin", name), 0o755);
}

/** Answers its own previous result, as a plugin of a chain that changes nothing. */
const PASS_ON = `jq -c '.prevResult // {}'`;

/** What a connection from the host to an address reads first. */
async function ask(hostname: string, port: number): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  const socket = await Bun.connect({
    hostname,
    port,
    socket: {
      data: (_socket, data) => resolve(data.toString()),
      connectError: (_socket, error) => reject(error),
      close: () => reject(new Error("closed without a word")),
    },
  });
  try {
    return await promise;
  } finally {
    socket.end();
  }
}

/** Greets whoever connects to the port in the pod. */
function greeter(of: PodNetwork, port: number): Disposable {
  const server = inNetworkNamespace(of.netnsPath, () =>
    Bun.listen({
      hostname: "0.0.0.0",
      port,
      socket: { open: (socket) => void socket.write(`from ${of.id}`), data: () => undefined },
    }),
  );
  return { [Symbol.dispose]: () => server.stop(true) };
}

describe.each(SUITES)("plugins of %s", (suite) => {
  const versions = ["0.3.1", "0.4.0", "1.0.0", ...(suite === "sid" ? ["1.1.0"] : [])];
  test.each(versions)(
    "a pod on a bridge, CNI %s: addresses of both families, loopback, the host reaches it",
    async (version) => {
      configure("10.conflist", bridgeList("net", { version, subnets: ["10.89.0.0/24", "fd89::/64"] }));
      networks = open(suite);
      expect(await networks.status()).toEqual({ ready: true, message: "" });
      const one = pod();
      const { ip, additionalIps, result } = await networks.add(one);
      expect([ip, additionalIps]).toEqual(["10.89.0.2", ["fd89::2"]]);
      expect(result.Interfaces["eth0"]).toMatchObject({
        Sandbox: one.netnsPath,
        Mac: expect.stringMatching(/^(..:){5}..$/),
      });
      expect(Object.keys(result.Interfaces)).toEqual(expect.arrayContaining(["cni0", "eth0", "lo"]));
      expect(await inside(one, "ip", "-o", "-4", "addr", "show")).toMatch(
        /lo +inet 127\.0\.0\.1\/8[\s\S]*eth0 +inet 10\.89\.0\.2\/24/,
      );
      using _server = greeter(one, 80);
      expect(await ask(ip, 80)).toBe(`from ${one.id}`);
      if (version === "0.3.1")
        expect(networks.check(one)).rejects.toThrow('"0.3.1" does not support the CHECK command');
      else await networks.check(one);
      await networks.del(one);
      await networks.del(one);
      expect(await leftovers()).toEqual([]);
    },
  );

  test("port mappings, bandwidth and firewall rules come and go with the pod", async () => {
    const more = [
      { type: "portmap", capabilities: { portMappings: true } },
      { type: "bandwidth", capabilities: { bandwidth: true } },
      { type: "firewall", backend: "iptables" },
    ];
    configure("10.conflist", bridgeList("net", { more }));
    networks = open(suite);
    const one = pod({
      portMappings: [{ hostPort: 8089, containerPort: 80, protocol: Protocol.TCP, hostIp: "" }],
      annotations: { "kubernetes.io/ingress-bandwidth": "10M", "kubernetes.io/egress-bandwidth": "1M" },
    });
    await networks.add(one);
    using _server = greeter(one, 80);
    expect(await ask("10.89.0.1", 8089)).toBe(`from ${one.id}`);
    expect(await output(["tc", "qdisc", "show"])).toMatch(/tbf .* rate 10Mbit[\s\S]*tbf .* rate 1Mbit/);
    expect(await output(["iptables-save"])).toMatch(/CNI-FORWARD -d 10\.89\.0\.2\/32/);
    await networks.del(one);
    expect(await leftovers()).toEqual([]);
    expect(await output(["tc", "qdisc", "show"])).not.toContain("tbf");
  });
});

test("several networks: eth0 and eth1 by the order of the files, at once or in turn", async () => {
  configure("10.conflist", bridgeList("first", { bridge: "cni1", subnets: ["10.91.0.0/24"] }));
  configure("20.conflist", bridgeList("second", { bridge: "cni2", subnets: ["10.92.0.0/24"] }));
  for (const setup_serially of [false, true]) {
    networks = open("sid", { max_conf_num: 0, setup_serially });
    const one = pod();
    const { ip, result } = await networks.add(one);
    expect(ip).toStartWith("10.91.0.");
    expect(result.Interfaces["eth1"]?.IPConfigs?.[0]?.IP).toStartWith("10.92.0.");
    await networks.del(one);
    expect(await leftovers()).toEqual([]);
    networks.close();
  }
});

test("a handler's own folder of configurations, the default's for all others", async () => {
  mkdirSync(join(folder, "special"));
  configure("10.conflist", bridgeList("net"));
  writeFileSync(
    join(folder, "special", "10.conflist"),
    bridgeList("special", { bridge: "cni9", subnets: ["10.99.0.0/24"] }),
  );
  const runc = CRI_RUNTIME.default.containerd.runtimes["runc"];
  if (runc === undefined) throw new Error("runc is there by default");
  networks = open("sid", {}, { runc, kata: { ...runc, cni_conf_dir: join(folder, "special") } });
  expect(networks.loadStatus()).toEqual({ default: "OK", kata: "OK" });
  const [plain, special] = [pod({}, "runc"), pod({}, "kata")];
  expect((await networks.add(plain)).ip).toBe("10.89.0.2");
  expect((await networks.add(special)).ip).toBe("10.99.0.2");
  await Promise.all([networks.del(plain), networks.del(special)]);
  expect(await leftovers()).toEqual([]);
});

test("loopback without a plugin for it", async () => {
  rmSync(join(folder, "bin"), { recursive: true, force: true });
  configure("10.conflist", bridgeList("net"));
  networks = open("sid", { use_internal_loopback: true });
  const one = pod();
  const { result } = await networks.add(one);
  expect(Object.keys(result.Interfaces)).not.toContain("lo");
  expect(await inside(one, "ip", "-o", "-4", "addr", "show", "lo")).toContain("127.0.0.1/8");
  await networks.del(one);
  expect(await leftovers()).toEqual([]);
});

describe("the CNI project's loopback", () => {
  const real = (suite: Suite): string => join(pluginFolders.get(suite) ?? "", "loopback");

  /** What pods are told and what is remembered of them, without their own names. */
  async function attachedAndDetached(suite: Suite): Promise<unknown> {
    networks = open(suite);
    const one = pod();
    const { result } = await networks.add(one);
    expect(await inside(one, "ip", "-br", "addr", "show", "lo")).toContain("127.0.0.1/8 ::1/128");
    const cached = readFileSync(join(folder, "cache/results", `cni-loopback-${one.id}-lo`), "utf8");
    await networks.del(one);
    expect(await inside(one, "ip", "-br", "addr", "show", "lo")).toMatch(/DOWN +127/);
    expect(await leftovers()).toEqual([]);
    networks.close();
    const { lo } = result.Interfaces as Record<string, unknown>;
    return JSON.parse(JSON.stringify({ lo, cached: JSON.parse(cached) }).replaceAll(one.id, "ID"));
  }

  test.each(SUITES)("does in this process what the program does: %s", async (suite) => {
    configure("10.conflist", bridgeList("net"));
    ownPlugin("loopback", `echo "$CNI_COMMAND" >>${folder}/called; exec ${real(suite)}`);
    const told = await attachedAndDetached(suite);
    expect(readFileSync(join(folder, "called"), "utf8")).toBe("ADD\nDEL\n");
    rmSync(join(folder, "bin"), { recursive: true });
    expect(await attachedAndDetached(suite)).toEqual(told);
  });

  test("is not started; another's is, and one that may not be started fails", async () => {
    configure("10.conflist", bridgeList("net"));
    ownPlugin("loopback", "path\tgithub.com/containernetworking/plugins/plugins/main/loopback\n");
    await attachedAndDetached("sid");
    chmodSync(join(folder, "bin/loopback"), 0o644);
    networks = open("sid");
    const failure = (): Promise<unknown> => networks.add(pod()).catch((error: unknown) => error);
    expect(String(await failure())).toMatch(/type="loopback" failed \(add\): fork\/exec .*ermission denied/);
    ownPlugin("loopback", 'echo \'{"code":99,"msg":"mine"}\'; exit 1');
    expect(String(await failure())).toContain('type="loopback" failed (add): mine');
    expect(await leftovers()).toEqual([]);
  });
});

describe("what goes wrong", () => {
  test("a plugin of the chain that fails: what the others did is taken back, and its words are told", async () => {
    ownPlugin(
      "broken",
      `[ $CNI_COMMAND = ADD ] || exit 0; echo '{"code":7,"msg":"no such luck","details":"today"}'; exit 1`,
    );
    configure("10.conflist", bridgeList("net", { more: [{ type: "broken" }] }));
    networks = open("sid");
    const failure = await networks.add(pod()).catch((error: unknown) => error);
    expect(failure).toMatchObject({
      code: "Unknown",
      message: 'plugin type="broken" failed (add): no such luck; today',
    });
    expect(await leftovers()).toEqual([]);
  });

  test("a caller that gives up: the plugin at work is killed, and what the others did is taken back", async () => {
    ownPlugin("slow", `[ $CNI_COMMAND = ADD ] || exit 0; touch ${folder}/started; sleep 600`);
    configure("10.conflist", bridgeList("net", { more: [{ type: "slow" }] }));
    networks = open("sid");
    const controller = new AbortController();
    const adding = networks.add(pod(), controller.signal);
    while (!existsSync(join(folder, "started"))) await Bun.sleep(5);
    controller.abort();
    expect(await adding.catch((error: unknown) => error)).toMatchObject({ code: "Canceled" });
    expect(await leftovers()).toEqual([]);
  });

  test("without a configuration nothing is attached; what was attached is taken off all the same", async () => {
    configure("10.conflist", bridgeList("net", { version: "0.4.0" }));
    networks = open("sid");
    const one = pod();
    await networks.add(one);
    networks.close();
    rmSync(join(folder, "conf"), { recursive: true });
    // As after a restart of the daemon.
    networks = open("sid");
    expect(await networks.status()).toEqual({ ready: false, message: "cni plugin not initialized" });
    expect(networks.add(pod())).rejects.toMatchObject({
      code: "FailedPrecondition",
      message: "cni plugin not initialized",
    });
    await networks.del(one);
    expect(await leftovers()).toEqual([]);
  });

  test("a pod whose namespace is gone, and whose attachment nobody remembers", async () => {
    configure("10.conflist", bridgeList("net"));
    networks = open("sid");
    const one = pod();
    await networks.add(one);
    removeNetworkNamespace(one.netnsPath);
    rmSync(join(folder, "cache"), { recursive: true });
    await networks.del(one);
    // The kernel takes a namespace's interfaces down in its own time.
    while ((await output(["ip", "-o", "link", "show", "type", "veth"])) !== "") await Bun.sleep(5);
    expect(await leftovers()).toEqual([]);
  });

  test("DEL gets what ADD got and gave, the last plugin first", async () => {
    for (const name of ["one", "two"])
      ownPlugin(
        name,
        `cat >${folder}/stdin; echo $CNI_COMMAND ${name} >>${folder}/calls; cp ${folder}/stdin ${folder}/$CNI_COMMAND-${name}; [ $CNI_COMMAND = DEL ] || ${PASS_ON} <${folder}/stdin`,
      );
    configure(
      "10.conflist",
      bridgeList("net", { more: [{ type: "one" }, { type: "two", capabilities: { dns: true } }] }),
    );
    networks = open("sid");
    const one = pod({ dnsConfig: { servers: ["10.0.0.10"], searches: [], options: [] } });
    await networks.add(one);
    const cached = JSON.parse(readFileSync(join(folder, "cache/results", `net-${one.id}-eth0`), "utf8"));
    expect(Object.keys(cached)).toEqual([
      "kind",
      "containerId",
      "config",
      "ifName",
      "networkName",
      "netns",
      "cniArgs",
      "capabilityArgs",
      "result",
    ]);
    await networks.del({ ...one, capabilityArgs: {} });
    expect(readFileSync(join(folder, "calls"), "utf8").trim().split("\n")).toEqual([
      "ADD one",
      "ADD two",
      "DEL two",
      "DEL one",
    ]);
    const [added, deleted] = ["ADD-two", "DEL-two"].map((name) =>
      JSON.parse(readFileSync(join(folder, name), "utf8")),
    );
    expect(deleted).toEqual(added);
    expect(added).toMatchObject({
      name: "net",
      cniVersion: "1.0.0",
      runtimeConfig: { dns: { Servers: ["10.0.0.10"] } },
    });
    expect(added.prevResult.ips[0].address).toBe("10.89.0.2/24");
    expect(await leftovers()).toEqual([]);
  });
});

test("the capability ips asks for addresses, of which CRI has no word", async () => {
  const list = JSON.parse(bridgeList("net", { subnets: ["10.89.0.0/24", "fd89::/64"] }));
  list.plugins[0].capabilities = { ips: true };
  configure("10.conflist", JSON.stringify(list));
  networks = open("sid");
  const one = pod();
  const wanted = { ...one, capabilityArgs: { ...one.capabilityArgs, ips: ["10.89.0.77/24", "fd89::77/64"] } };
  const { ip, additionalIps } = await networks.add(wanted);
  expect([ip, additionalIps]).toEqual(["10.89.0.77", ["fd89::77"]]);
  await networks.del(one);
  expect(await leftovers()).toEqual([]);
});

test("CHECK finds what somebody took away", async () => {
  configure("10.conflist", bridgeList("net"));
  networks = open("sid", { use_internal_loopback: true });
  const one = pod();
  await networks.add(one);
  await networks.check(one);
  await inside(one, "ip", "addr", "flush", "dev", "eth0");
  expect(networks.check(one)).rejects.toThrow(/plugin type="bridge" failed \(check\): /);
  await networks.check(one).catch(() => undefined);
  await networks.del(one);
});

test("STATUS of CNI 1.1.0 is asked for, and told", async () => {
  ownPlugin(
    "moody",
    `[ $CNI_COMMAND != STATUS ] || [ ! -e ${folder}/down ] || { echo '{"code":50,"msg":"plugin not available"}'; exit 1; }`,
  );
  configure("10.conflist", bridgeList("net", { version: "1.1.0", more: [{ type: "moody" }] }));
  networks = open("sid");
  expect(await networks.status()).toEqual({ ready: true, message: "" });
  writeFileSync(join(folder, "down"), "");
  expect(await networks.status()).toEqual({ ready: false, message: "plugin not available" });
  configure("10.conflist", bridgeList("net", { version: "1.0.0", more: [{ type: "moody" }] }));
  while (networks.configDump().Networks?.[1]?.Config["CNIVersion"] !== "1.0.0") await Bun.sleep(5);
  expect(await networks.status()).toEqual({ ready: true, message: "" });
});

test("GC ends attachments of pods that are no more, and tells plugins which are left", async () => {
  ownPlugin("tidy", `[ $CNI_COMMAND = GC ] && cat >${folder}/gc; [ $CNI_COMMAND != ADD ] || ${PASS_ON}`);
  configure("10.conflist", bridgeList("net", { version: "1.1.0", more: [{ type: "tidy" }] }));
  networks = open("sid", { use_internal_loopback: true });
  const [kept, lost] = [pod(), pod()];
  await networks.add(kept);
  await networks.add(lost);
  await networks.gc([kept.id]);
  expect(JSON.parse(readFileSync(join(folder, "gc"), "utf8"))).toMatchObject({
    name: "net",
    "cni.dev/valid-attachments": [{ containerID: kept.id, ifname: "eth0" }],
  });
  expect(readdirSync(join(folder, "cache/results"))).toEqual([`net-${kept.id}-eth0`]);
  await networks.check(kept);
  await networks.del(kept);
  expect(await leftovers()).toEqual([]);
});

test("twenty pods at once have addresses of their own, and leave nothing", async () => {
  configure("10.conflist", bridgeList("net"));
  networks = open("sid");
  const pods = Array.from({ length: 20 }, () => pod());
  const results = await Promise.all(pods.map((one) => networks.add(one)));
  expect(new Set(results.map(({ ip }) => ip)).size).toBe(20);
  await Promise.all(pods.map((one) => networks.del(one)));
  expect(await leftovers()).toEqual([]);
});
