import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { stringify } from "smol-toml";
import { BunkerdError } from "../model/errors.ts";
import type { Problem } from "./config.ts";
import { formatConfig } from "./dump.ts";
import { type ConfigFlags, loadConfig } from "./load.ts";
import { nodeAt, plainOf } from "./tree.ts";

let folder = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "bunkerd-config-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

function write(name: string, text: string): string {
  const path = join(folder, name);
  writeFileSync(path, text);
  return path;
}

function load(text: string, flags: ConfigFlags = {}) {
  return loadConfig({ path: write("config.toml", text), flags });
}

const kinds = (problems: readonly Problem[]): string[] => problems.map(({ kind }) => kind);

describe("versions", () => {
  test("version 2, 3 and 4 name the same address", () => {
    const old = '[grpc]\naddress = "/a.sock"\nuid = 7\nmax_recv_message_size = 1000\n';
    for (const text of [`version = 2\n${old}`, `version = 3\n${old}`]) {
      const { config, problems } = load(text);
      expect(config.grpc).toMatchObject({ address: "/a.sock", uid: 7, gid: 0, maxReceiveBytes: 1000 });
      expect(config.ttrpc).toMatchObject({ address: "/a.sock.ttrpc", uid: 7 });
      expect(problems).toEqual([]);
    }
    const { config } = load('version = 4\n[plugins."io.containerd.server.v1.grpc"]\naddress = "/a.sock"\n');
    expect(config.grpc.address).toBe("/a.sock");
    expect(config.ttrpc.address).toBe("/run/bunkerd/bunkerd.sock.ttrpc");
  });

  test("version 4 ignores the old tables, and says so", () => {
    const { config, problems } = load(
      'version = 4\n[grpc]\naddress = "/a.sock"\n[debug]\naddress = "/d"\nlevel = "warn"\n',
    );
    expect(config.grpc.address).toBe("/run/bunkerd/bunkerd.sock");
    expect(config.logLevel).toBe("warn");
    expect(kinds(problems)).toEqual(["removed", "removed"]);
    expect(problems[0]?.message).toContain('version 4 reads it from plugins."io.containerd.server.v1.grpc"');
  });

  test("no version is version 1: short plugin names", () => {
    const { config, problems } = load(
      'disabled_plugins = ["cri", "containers-service"]\n[plugins.scheduler]\npause_threshold = 0.9\n',
    );
    expect(config.gc.pauseThreshold).toBe(0.5);
    expect([...config.disabledPlugins]).toEqual([
      "io.containerd.grpc.v1.cri",
      "io.containerd.service.v1.containers-service",
    ]);
    expect(kinds(problems)).toEqual(["deprecated"]);
  });

  test("a version that does not exist yet is refused", () => {
    expect(() => load("version = 5")).toThrow(
      /config.toml: version: expected containerd config version equal to or less than 4, got 5$/,
    );
    expect(() => load('version = "2"')).toThrow('expected an integer, found string "2"');
  });

  test("the CRI plugin of version 2 becomes three", () => {
    const { tree, problems } = load(`version = 2
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "pause:1"
stream_server_port = "10010"
max_container_log_line_size = 5
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "native"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.kata]
runtime_type = "io.containerd.kata.v2"
sandbox_mode = "shim"
`);
    expect(plainOf(nodeAt(tree, "plugins") ?? new Map())).toEqual({
      "io.containerd.grpc.v1.cri": { stream_server_port: "10010" },
      "io.containerd.cri.v1.images": { pinned_images: { sandbox: "pause:1" }, snapshotter: "native" },
      "io.containerd.cri.v1.runtime": {
        max_container_log_line_size: 5n,
        cni: { bin_dirs: ["/usr/lib/cni"] },
        containerd: { runtimes: { kata: { runtime_type: "io.containerd.kata.v2", sandboxer: "shim" } } },
      },
    });
    expect(problems).toEqual([]);
  });

  test("plugins that changed their name keep their keys", () => {
    const { tree } = load(`version = 3
[plugins."io.containerd.internal.v1.restart"]
interval = "1s"
[plugins."io.containerd.runtime.v2.task"]
sched_core = true
`);
    expect(plainOf(nodeAt(tree, "plugins") ?? new Map())).toEqual({
      "io.containerd.monitor.container.v1.restart": { interval: "1s" },
      "io.containerd.runtime.v2.task": {},
      "io.containerd.shim.v1.manager": { env: ["SCHED_CORE=1"] },
    });
  });
});

describe("imports", () => {
  test("later files win, arrays are united, plugin tables are merged", () => {
    mkdirSync(join(folder, "conf.d"));
    write(
      "conf.d/10.toml",
      `version = 2\nroot = "/r10"\noom_score = 0\ndisabled_plugins = ["a.b", "c.d"]\n[timeouts]\n"io.containerd.timeout.bolt.open" = "1s"\n`,
    );
    write("conf.d/20.toml", `version = 3\nroot = "/r20"\n[grpc]\nmax_send_message_size = 5\n`);
    const { config, files } = load(`version = 2
imports = ["conf.d/*.toml"]
root = "/r"
state = "/s"
oom_score = 9
disabled_plugins = ["a.b"]
[grpc]
address = "/a.sock"
max_recv_message_size = 4
`);
    expect(files.map((file) => file.slice(folder.length + 1))).toEqual([
      "config.toml",
      "conf.d/10.toml",
      "conf.d/20.toml",
    ]);
    expect(config).toMatchObject({ root: "/r20", state: "/s", oomScore: 9, bolt: { openTimeoutMs: 1000 } });
    expect([...config.disabledPlugins]).toEqual(["a.b", "c.d"]);
    expect(config.grpc).toMatchObject({ address: "/a.sock", maxReceiveBytes: 4, maxSendBytes: 5 });
  });

  test("a circle ends, a missing file is an error, no match is none", () => {
    write("other.toml", 'imports = ["config.toml", "other.toml"]\nroot = "/other"');
    expect(load('version = 2\nimports = ["other.toml", "none/*.toml"]').config.root).toBe("/other");
    expect(() => load('version = 2\nimports = ["gone.toml"]')).toThrow(
      `open ${folder}/gone.toml: no such file or directory`,
    );
    expect(() => load('version = 2\nimports = "gone.toml"')).toThrow(
      "config.toml: imports: expected an array of strings, found string",
    );
    expect(() => load('version = 2\nimports = ["[z-a]*"]')).toThrow("syntax error in import pattern");
  });

  test("an endless chain through a symlink ends where the kernel ends it", () => {
    symlinkSync(folder, join(folder, "loop"));
    expect(() => load('version = 2\nimports = ["loop/config.toml"]')).toThrow("too many symbolic links");
  });
});

describe("flags", () => {
  test("win over files, relative folders become absolute", () => {
    const { config } = load(
      'version = 2\nroot = "/r"\n[debug]\nlevel = "warn"\n[grpc]\naddress = "/a"\nuid = 3',
      {
        root: "here",
        address: "/flag.sock",
        logLevel: "debug",
      },
    );
    expect(config.root).toBe(join(process.cwd(), "here"));
    expect(config.logLevel).toBe("debug");
    expect(config.grpc).toMatchObject({ address: "/flag.sock", uid: 3 });
    expect(config.ttrpc.address).toBe("/a.ttrpc");
  });

  test("the address brings its ttrpc address along", () => {
    expect(
      loadConfig({ path: write("empty.toml", "version = 4"), flags: { address: "/x" } }).config.ttrpc.address,
    ).toBe("/x.ttrpc");
  });
});

describe("problems", () => {
  test.each([
    ["rooot = 'x'", "unknown", 'rooot: unknown key "rooot", did you mean "root"?'],
    ["[grpc]\nadress = '/x'", "unknown", 'grpc.adress: unknown key "adress", did you mean "address"?'],
    ["[grpc]\ntcp_adress = '/x'", "unknown", 'unknown key "tcp_adress", did you mean "tcp_address"?'],
    ["[metrics]\nadress = '/x'", "unknown", 'unknown key "adress", did you mean "address"?'],
    ["root = 1", "type", "root: expected a string, found integer 1"],
    ["root = ['a']", "type", "root: expected a string, found array"],
    ["oom_score = 1.5", "type", "oom_score: expected an integer, found float 1.5"],
    ["oom_score = 1001", "value", "oom_score: 1001 is above the maximum 1000"],
    ["oom_score = 9223372036854775807", "value", "is above the maximum 1000"],
    ["disabled_plugins = [1]", "type", "disabled_plugins: expected an array of strings, found array"],
    ["[grpc]\naddress = [{}]", "type", "grpc.address: expected a string, found array"],
    ["debug = 1", "type", "debug: expected a table, found integer 1"],
    ["[debug]\nlevel = 'wran'", "value", 'debug.level: unknown value "wran", expected one of trace, debug'],
    ["[root]\nx = 1", "type", "root.x: expected a string, found table"],
    [
      "[timeouts]\n'io.containerd.timeout.shim.load' = '5'",
      "type",
      'expected a duration such as "1m30s", found string "5"',
    ],
    [
      "[timeouts]\n'io.containerd.timeout.shim.lod' = '5s'",
      "unknown",
      'did you mean "io.containerd.timeout.shim.load"?',
    ],
    [
      "[plugins.'io.containerd.gc.v1.schedular']\nx = 1",
      "unknown",
      'did you mean "io.containerd.gc.v1.scheduler"?',
    ],
    [
      "[plugins.'io.containerd.gc.v1.scheduler']\npause_treshold = 1",
      "unknown",
      'did you mean "pause_threshold"?',
    ],
    [
      "[plugins.'io.containerd.tracing.processor.v1.otlp']\nendpoint = 'x'",
      "unbuilt",
      "tracing is not built yet",
    ],
    [
      "[plugins.'io.containerd.transfer.v1.local']\nunpack_config = [{ platfrom = 'x' }]",
      "unknown",
      "unpack_config[0].platfrom",
    ],
    ["plugin_dir = '/x'", "removed", "plugin_dir: ignored: containerd 2 loads no Go plugins"],
    [
      "[plugins.'io.containerd.cri.v1.runtime']\nenable_experimental_restore_via_create = true",
      "removed",
      "enable_experimental_restore_via_create: ignored: CreateContainer restores no checkpoint",
    ],
    ["__proto__ = 1", "unknown", 'unknown key "__proto__"'],
    ["[plugins.constructor]\nx = 1", "unknown", 'unknown key "constructor"'],
  ])("%p is %p", (text, kind, message) => {
    const { problems } = load(`version = 2\n${text}`);
    expect(kinds(problems)).toEqual([kind as Problem["kind"]]);
    expect(problems[0]?.message).toStartWith(`${folder}/config.toml: `);
    expect(problems[0]?.message).toContain(message);
  });

  test("keys and log levels may be written in letters of another case, as in containerd", () => {
    const scheduler = '[plugins."io.containerd.gc.v1.scheduler"]\nStartup_Delay = "5ms"';
    const { config, problems } = load(`version = 2\nRoot = "/r"\n[Debug]\nlevel = "WARNING"\n${scheduler}`);
    expect(problems).toEqual([]);
    expect(config.root).toBe("/r");
    expect(config.logLevel).toBe("warn");
    expect(config.gc.startupDelayMs).toBe(5);
    // The right spelling wins, and the other is told.
    const both = load('version = 2\nRoot = "/x"\nroot = "/r"\nROOT = "/y"');
    expect(both.config.root).toBe("/r");
    expect(kinds(both.problems)).toEqual(["unknown", "unknown"]);
  });

  test("a duration without a unit is nanoseconds, as in containerd; where that keeps a text it is refused", () => {
    const scheduler = '[plugins."io.containerd.gc.v1.scheduler"]\nstartup_delay = 250_000_000';
    const { config, problems } = load(`version = 3\n${scheduler}`);
    expect(problems).toEqual([]);
    expect(config.gc.startupDelayMs).toBe(250);
    const timeouts = "[timeouts]\n'io.containerd.timeout.shim.load' = 5";
    expect(kinds(load(`version = 3\n${timeouts}`).problems)).toEqual(["type"]);
  });

  test("a setting of an unbuilt part at its default is no problem", () => {
    expect(
      load(
        'version = 3\n[plugins."io.containerd.gc.v1.scheduler"]\nstartup_delay = "100ms"\nschedule_delay = 0',
      ).problems,
    ).toEqual([]);
  });

  test("a setting of old has its effect and a warning; an empty one has none", () => {
    const registry = "[plugins.'io.containerd.grpc.v1.cri'.registry";
    const { config, problems } = load(
      `version = 2\n${registry}.mirrors.'*']\nendpoint = ['http://m']\n${registry}.configs]\n`,
    );
    expect(config.cri.images.registry.mirrors).toEqual({ "*": { endpoint: ["http://m"] } });
    expect(kinds(problems)).toEqual(["deprecated"]);
    expect(problems[0]?.message).toEndWith(": deprecated: use config_path and a hosts.toml");
    const used = ["io.containerd.deprecation/cri-registry-mirrors"];
    expect(config.cri.deprecations).toEqual({ images: used, runtime: [] } as never);
  });

  test("settings of CRI that containerd calls deprecated are known by its ids", () => {
    const runtime = '[plugins."io.containerd.cri.v1.runtime"';
    const cni = `${runtime}.cni]\nbin_dir = '/a'\nbin_dirs = []`;
    const of = (text: string) => {
      const { config, problems } = load(`version = 3\n${text}`);
      return { used: config.cri.deprecations.runtime, told: kinds(problems) };
    };
    expect(of(`${runtime}]\nenable_cdi = false\n${cni}`)).toEqual({
      used: ["io.containerd.deprecation/cri-cni-bin-dir", "io.containerd.deprecation/enable-cdi"],
      told: ["deprecated", "deprecated"],
    });
    expect(of(`${runtime}]\nenable_cdi = true\n${runtime}.cni]\nbin_dir = ''`)).toEqual({
      used: [],
      told: [],
    });
  });

  test.each([
    ["containerd]\ndefault_runtime_name = 'x'", "runtime", 'default_runtime_name = "x"'],
    ["containerd]\ndefault_runtime_name = ''", "runtime", "is empty"],
    ["cni]\nbin_dir = '/a'\nbin_dirs = ['/b']", "runtime", "cannot be set at the same time"],
    [
      "registry]\nconfig_path = '/a'\n[CRI.registry.mirrors.x]\nendpoint = ['y']",
      "images",
      "`mirrors` cannot",
    ],
    ["registry.auths.'http://']\nusername = 'a'", "images", 'failed to parse registry url "http://"'],
  ])("CRI that cannot be as %p says", (text, plugin, message) => {
    const id = `io.containerd.cri.v1.${plugin}`;
    const lines = `[CRI.${text}`.replaceAll("CRI", `plugins."${id}"`);
    const { config, problems } = load(`version = 3\n${lines}`);
    const faults = problems.filter(({ kind }) => kind === "fault");
    expect(faults.map((fault) => fault.message)).toEqual([expect.stringContaining(message)]);
    expect(faults[0]?.message).toStartWith(`plugins."${id}": invalid `);
    expect(Object.keys(config.cri.faults)).toEqual([plugin]);
    const disabled = load(`version = 3\ndisabled_plugins = ["${id}"]\n${lines}`);
    expect(disabled.problems).toEqual([]);
  });

  test("a disabled plugin's keys are not looked at", () => {
    const text =
      'version = 3\ndisabled_plugins = ["io.containerd.nri.v1.nri"]\n[plugins."io.containerd.nri.v1.nri"]\nx = 1';
    expect(load(text).problems).toEqual([]);
  });

  test.each([
    ["version = 2\nroot = ", /config.toml:2:\d+: /],
    ["version = 2\nroot = '/x'\nstate = '/x'", /root and state must be different paths/],
    ["version = 2\ndisabled_plugins = ['cri']", /disabled_plugins: invalid disabled plugin URI "cri"/],
    ["version = 2\nplugins = 1", /expected a table/],
  ])("%p cannot be loaded", (text, message) => {
    const outcome = (): string =>
      load(text)
        .problems.map((problem) => problem.message)
        .join();
    expect(() => {
      const messages = outcome();
      if (messages !== "") throw new Error(messages);
    }).toThrow(message);
  });

  test("bytes that are no text are refused by name", () => {
    const path = join(folder, "binary.toml");
    writeFileSync(path, new Uint8Array([0xff, 0xfe, 0]));
    expect(() => loadConfig({ path })).toThrow(`${path}: not UTF-8 text`);
    expect(() => loadConfig({ path: folder })).toThrow(`read ${folder}: `);
  });
});

test("what is dumped loads as the same settings", () => {
  const { tree, config } = load(`version = 3
root = "/r"
[grpc]
address = "/a.sock"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.kata.options]
"a key" = 18446744
deep = [[1, 2], ["x"]]
[plugins."io.containerd.transfer.v1.local"]
unpack_config = [{ platform = "linux/arm64", layer_types = ["a", "b"] }]
[plugins."org.example.v1.mine"]
x = 0.5
`);
  const text = formatConfig(tree);
  const again = loadConfig({ path: write("dump.toml", text) });
  expect(again.config).toEqual(config);
  expect(formatConfig(again.tree)).toBe(text);
  expect(formatConfig(tree, { origins: true })).toContain(
    `address = "/a.sock"  # ${folder}/config.toml: grpc.address`,
  );
});

const value: fc.Arbitrary<unknown> = fc.letrec((tie) => ({
  node: fc.oneof(
    { depthSize: "small" },
    fc.string(),
    fc.integer(),
    fc.bigInt(-(2n ** 63n), 2n ** 63n - 1n),
    fc.double({ noNaN: true }),
    fc.boolean(),
    fc.array(tie("node"), { maxLength: 3 }),
    fc.dictionary(
      fc.oneof(fc.string(), fc.constantFrom("address", "cni", "containerd", "runtimes")),
      tie("node"),
      { maxKeys: 4 },
    ),
  ),
})).node;

const topLevel = fc.constantFrom(
  "root",
  "debug",
  "grpc",
  "ttrpc",
  "metrics",
  "timeouts",
  "plugins",
  "imports",
  "disabled_plugins",
  "cgroup",
);
const pluginId = fc.constantFrom(
  "io.containerd.grpc.v1.cri",
  "io.containerd.cri.v1.runtime",
  "io.containerd.runtime.v2.task",
  "io.containerd.server.v1.grpc",
  "io.containerd.transfer.v1.local",
);

test("whatever stands in a file, it loads or is refused by name", () => {
  fc.assert(
    fc.property(
      fc.constantFrom(1n, 2n, 3n, 4n),
      fc.dictionary(topLevel, value),
      fc.dictionary(pluginId, value),
      (version, root, plugins) => {
        const text = stringify({ ...root, version, ...(version === 2n ? { plugins } : {}) });
        try {
          const { tree, config } = load(text);
          const again = loadConfig({ path: write("again.toml", formatConfig(tree)) });
          expect(again.config).toEqual(config);
        } catch (error) {
          if (!(error instanceof BunkerdError)) throw error;
          expect(error.message).not.toContain("\n");
        }
      },
    ),
    { numRuns: 300 },
  );
});

test("the default config loads without a problem", () => {
  const path = write("default.toml", formatConfig(new Map()));
  expect(loadConfig({ path }).problems).toEqual([]);
});

test("migrated settings are those that were set, no more", () => {
  const { tree } = load('version = 2\nroot = "/r"\n[metrics]\naddress = "127.0.0.1:1338"\n');
  expect(formatConfig(tree, { defaults: false })).toBe(`version = 4
root = "/r"

[plugins]

  [plugins."io.containerd.server.v1.metrics"]
    address = "127.0.0.1:1338"
`);
});
