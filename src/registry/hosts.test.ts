import { afterAll, describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type HostsOptions, isMirror, registryHosts } from "./hosts.ts";
import { isLoopback } from "./loopback.ts";
import type { Mirrors } from "./mirrors.ts";

const root = mkdtempSync(join(tmpdir(), "bunkerd-hosts-"));
afterAll(() => rmSync(root, { recursive: true }));
let folders = 0;

/** A `certs.d` with one folder and its files. */
function certs(folder: string, files: Readonly<Record<string, string>>): string {
  const hostsDirectory = join(root, String(folders++));
  mkdirSync(join(hostsDirectory, folder), { recursive: true });
  for (const [name, text] of Object.entries(files)) writeFileSync(join(hostsDirectory, folder, name), text);
  return hostsDirectory;
}

const only = (name: string, defaultScheme?: string) => registryHosts(name, { defaultScheme })[0];

describe("hosts that no file names", () => {
  test.each([
    ["docker.io", undefined, { scheme: "https", host: "registry-1.docker.io", fallsBack: false, tls: {} }],
    ["quay.io", undefined, { scheme: "https", host: "quay.io", fallsBack: false, tls: {} }],
    ["quay.io", "http", { scheme: "http", host: "quay.io", fallsBack: false }],
    ["localhost:5000", undefined, { scheme: "https", fallsBack: true, tls: { skipVerify: true } }],
    ["127.0.0.1:80", undefined, { scheme: "http", fallsBack: false, tls: {} }],
    ["[::1]:443", undefined, { scheme: "https", fallsBack: false, tls: { skipVerify: true } }],
    ["localhost", undefined, { scheme: "https", fallsBack: false, tls: { skipVerify: true } }],
    ["localhost:5000", "https", { scheme: "https", fallsBack: false, tls: {} }],
  ] as const)("%s by %s", (name, scheme, expected) => {
    expect(only(name, scheme)).toMatchObject({ path: "/v2", origin: `default for ${name}`, ...expected });
  });

  test("a scheme that is none is refused", () => {
    expect(() => only("a.b", "gopher")).toThrow('default scheme "gopher" is neither http nor https');
  });
});

describe("hosts.toml", () => {
  const read = (text: string, name = "reg.example:5000") =>
    registryHosts(name, { hostsDirectory: certs("reg.example_5000_", { "hosts.toml": text }) });

  test("mirrors in their order, then the server, each by its own rules", () => {
    const hosts = read(`
      server = "https://up.example/base"
      skip_verify = true
      [host."http://z.example:8080"]
      capabilities = ["pull", "Resolve"]
      [host."http://z.example:8080".header]
      x-one = "1"
      x-two = ["a", "b"]
      [host."a.example/other/v2/"]
      ca = "ca.pem"
      client = [["c.pem", "/k.pem"], "both.pem"]
      dial_timeout = "1.5s"
      [host."https://o.example/api"]
      override_path = true
    `);
    expect(hosts.map(({ scheme, host, path }) => `${scheme}://${host}${path}`)).toEqual([
      "http://z.example:8080/v2",
      "https://a.example/other/v2",
      "https://o.example/api",
      "https://up.example/base/v2",
    ]);
    expect([...(hosts[0]?.capabilities ?? [])]).toEqual(["pull", "resolve"]);
    expect(hosts[0]?.headers).toEqual([
      ["x-one", "1"],
      ["x-two", "a"],
      ["x-two", "b"],
    ]);
    const folder = (hosts[0]?.origin ?? "").replace("/hosts.toml", "");
    expect(hosts[1]?.tls).toEqual({
      ca: [join(folder, "ca.pem")],
      client: [
        [join(folder, "c.pem"), "/k.pem"],
        [join(folder, "both.pem"), undefined],
      ],
    });
    expect(hosts[1]?.dialTimeoutMs).toBe(1500);
    expect(hosts[3]?.tls).toEqual({ skipVerify: true });
    expect(hosts.every(({ origin }) => origin.endsWith("reg.example_5000_/hosts.toml"))).toBe(true);
  });

  test("without a server the name's own host comes last", () => {
    const hosts = read('[host."https://m.example"]\ncapabilities = ["pull"]');
    expect(hosts.map(({ host }) => host)).toEqual(["m.example", "reg.example:5000"]);
    expect(hosts[1]?.capabilities.size).toBe(4);
  });

  test("plain http with TLS set up tries TLS first", () => {
    expect(read('server = "http://up.example:5000"\nskip_verify = true').at(-1)).toMatchObject({
      scheme: "https",
      fallsBack: true,
    });
  });

  test.each([
    [
      '[host."https://m.example"]\ncapabilities = ["steal"]',
      'host."https://m.example".capabilities: unknown capability "steal"',
    ],
    ['server = "ftp://x"', "server: unable to parse server"],
    ['server = "https://user:secret@x"', "server: unable to parse server"],
    ["skip_verify = 1", "skip_verify: expected true or false"],
    ['client = [["a"]]', "client: invalid pair"],
    ['dial_timeout = "soon"', 'dial_timeout: invalid duration "soon"'],
    ['[header]\n"a b" = "c"', "header.a b: no header of HTTP"],
    ["server = ", "hosts.toml:1:"],
  ])("refuses %j and names the file", (text, message) => {
    const failure = expect(() => read(text));
    failure.toThrow(expect.objectContaining({ code: "InvalidArgument" }));
    failure.toThrow(message);
  });

  test("no message repeats a server's password", () => {
    expect(() => read('server = "https://user:secret@x"')).not.toThrow("secret");
  });
});

describe("folders", () => {
  test("_default serves who has none", () => {
    const hostsDirectory = certs("_default", { "hosts.toml": '[host."https://m.example"]' });
    expect(registryHosts("quay.io", { hostsDirectory }).map(({ host }) => host)).toEqual([
      "m.example",
      "quay.io",
    ]);
  });

  test("Docker's certificates", () => {
    const hostsDirectory = certs("quay.io", {
      "a.crt": "",
      "b.cert": "",
      "b.key": "",
      "c.cert": "",
      other: "",
    });
    const folder = join(hostsDirectory, "quay.io");
    expect(registryHosts("quay.io", { hostsDirectory })[0]).toMatchObject({
      origin: folder,
      tls: {
        ca: [join(folder, "a.crt")],
        client: [
          [join(folder, "b.cert"), join(folder, "b.key")],
          [join(folder, "c.cert"), undefined],
        ],
      },
    });
  });
});

test("loopback and mirrors", () => {
  expect(["localhost", "127.1.2.3:5", "[::1]:9", "::1"].map(isLoopback)).toEqual([true, true, true, true]);
  expect(["localhost.example", "127.0.0.1.example", "10.0.0.1"].map(isLoopback)).toEqual([
    false,
    false,
    false,
  ]);
  const [hub] = registryHosts("docker.io", {});
  expect(hub !== undefined && isMirror(hub, "docker.io")).toBe(false);
  expect(hub !== undefined && isMirror(hub, "quay.io")).toBe(true);
});

describe("mirrors of CRI's configuration of old", () => {
  const asked = (name: string, mirrors: Mirrors, more: HostsOptions = {}) =>
    registryHosts(name, { mirrors, ...more }).map(({ scheme, host, path }) => `${scheme}://${host}${path}`);
  const of = (...endpoint: string[]) => ({ endpoint });

  test("its own endpoints or those of *, then the host itself", () => {
    const mirrors = { "a.example": of("http://m.example:5000", "https://n.example"), "*": of("o.example") };
    expect(asked("a.example", mirrors)).toEqual([
      "http://m.example:5000/v2",
      "https://n.example/v2",
      "https://a.example/v2",
    ]);
    expect(asked("b.example", mirrors)).toEqual(["https://o.example/v2", "https://b.example/v2"]);
    expect(asked("docker.io", mirrors)).toEqual(["https://o.example/v2", "https://registry-1.docker.io/v2"]);
    expect(asked("b.example", { "a.example": of("m") })).toEqual(["https://b.example/v2"]);
    expect(asked("a.example", { "a.example": of(), "*": of("o.example") })).toEqual(["https://a.example/v2"]);
    expect(asked("constructor", mirrors)).toEqual(["https://o.example/v2", "https://constructor/v2"]);
  });

  test("an endpoint that is the host itself is the last; a path is the whole root; loopback is plain", () => {
    expect(asked("a.example", { "*": of("http://a.example", "127.0.0.1:5000/proxy/") })).toEqual([
      "http://a.example/v2",
      "http://127.0.0.1:5000/proxy",
    ]);
    expect(asked("a.example", { "*": of("https://m.example/") })[0]).toBe("https://m.example");
  });

  test("nothing is pushed to them", () => {
    const [mirror, own] = registryHosts("a.example", { mirrors: { "*": of("m.example") } });
    expect([mirror?.capabilities.has("push"), own?.capabilities.has("push")]).toEqual([false, true]);
    expect(mirror?.origin).toBe("mirrors of a.example in config.toml");
  });

  test("what is no URL is named with its place", () => {
    for (const odd of ["ftp://x", "http://", "http://u:p@x", "http://x/?q"])
      expect(() => asked("a", { "*": of(odd) })).toThrow(
        /registry\.mirrors\."\*"\.endpoint: .*expected http/,
      );
  });

  test("of several folders the first that has the host decides", () => {
    const [first, second] = [
      certs("x.example", { "hosts.toml": 'server = "https://one.example"' }),
      certs("y.example", { "hosts.toml": 'server = "https://two.example"' }),
    ];
    const hostsDirectory = ["/no/such", first, second];
    expect(asked("y.example", { "*": of("m.example") }, { hostsDirectory })).toEqual([
      "https://two.example/v2",
    ]);
    expect(asked("z.example", { "*": of("m.example") }, { hostsDirectory })[0]).toBe("https://m.example/v2");
  });
});
