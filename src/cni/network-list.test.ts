import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { configFiles, loadNetworkList, parseNetworkList, parseSinglePlugin } from "./network-list.ts";

const list = (more: object): string =>
  JSON.stringify({ name: "net", plugins: [{ type: "bridge" }], ...more });

test("a list's members, flags as booleans or texts, a plugin's capabilities", () => {
  const source = list({
    cniVersion: "1.0.0",
    disableCheck: "TRUE",
    disableGC: true,
    plugins: [{ type: "bridge" }, { type: "portmap", capabilities: { portMappings: true, ips: false } }],
  });
  const parsed = parseNetworkList(source);
  expect(parsed).toMatchObject({
    name: "net",
    cniVersion: "1.0.0",
    disableCheck: true,
    disableGc: true,
    source,
  });
  expect(parsed.plugins.map(({ type, capabilities }) => [type, [...capabilities]])).toEqual([
    ["bridge", []],
    ["portmap", ["portMappings"]],
  ]);
});

test("of several versions the newest that is spoken here counts", () => {
  const versions = ["0.3.1", "1.1.0", "1.0.0", "2.0.0"];
  expect(parseNetworkList(list({ cniVersions: versions })).cniVersion).toBe("1.1.0");
  expect(parseNetworkList(list({ cniVersions: ["0.3.1"], cniVersion: "0.4.0" })).cniVersion).toBe("0.4.0");
  expect(parseNetworkList(list({})).cniVersion).toBe("");
});

test.each([
  ["no JSON", "{", /error parsing configuration list: /],
  ["no object", "[]", /not an object/],
  ["no name", JSON.stringify({ plugins: [{ type: "a" }] }), /no name/],
  ["a name that leaves the folder", list({ name: "../a" }), /invalid characters found in network name/],
  ["an empty name", list({ name: "" }), /invalid characters found in network name/],
  ["a name of another type", list({ name: 1 }), /invalid name type number/],
  ["no plugins in the list", list({ plugins: [] }), /no plugins in list/],
  ["plugins of another type", list({ plugins: {} }), /'plugins' is no list/],
  ["a plugin without a type", list({ plugins: [{}] }), /missing 'type'/],
  ["a flag that is none", list({ disableCheck: "maybe" }), /invalid value "maybe" for disableCheck/],
  ["a version that is none", list({ cniVersions: ["one"] }), /invalid CNI version "one"/],
  ["only inlined plugins without any", '{"name":"a","loadOnlyInlinedPlugins":true}', /no 'plugins' key/],
])("%s is refused", (_what, source, message) => {
  expect(() => parseNetworkList(source)).toThrow(message);
});

test("a single plugin becomes a list of one", () => {
  const { name, cniVersion, plugins, source } = parseSinglePlugin(
    '{"name":"one","cniVersion":"0.3.1","type":"ptp","mtu":1}',
  );
  expect([name, cniVersion, plugins.map(({ json }) => json["mtu"])]).toEqual(["one", "0.3.1", [1]]);
  expect(parseNetworkList(source)).toMatchObject({ name, cniVersion });
  expect(() => parseSinglePlugin(list({}))).toThrow("missing 'type'");
});

describe("files", () => {
  let folder: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "bunkerd-cni-"));
  });
  afterEach(() => rmSync(folder, { recursive: true }));
  const write = (name: string, text: string): string => {
    writeFileSync(join(folder, name), text);
    return join(folder, name);
  };

  test("those of the three endings, in the order of their names", () => {
    for (const name of ["20.conf", "10.conflist", "30.json", "15.txt", "05.conf.bak"]) write(name, "");
    mkdirSync(join(folder, "00.conf"));
    expect(configFiles(folder, [".conf", ".conflist", ".json"])).toEqual(
      ["10.conflist", "20.conf", "30.json"].map((name) => join(folder, name)),
    );
    expect(configFiles(join(folder, "absent"), [".conf"])).toEqual([]);
  });

  test("plugins of the folder named as the network follow those of the list, unless it says not to", () => {
    mkdirSync(join(folder, "net"));
    write("net/b.conf", '{"type":"second"}');
    write("net/a.conf", '{"type":"first"}');
    const types = (file: string): string[] => loadNetworkList(file).plugins.map(({ type }) => type);
    const file = write("10.conflist", list({}));
    expect(types(file)).toEqual(["bridge", "first", "second"]);
    // What is remembered of an attachment is this text alone.
    const { source } = loadNetworkList(file);
    expect(parseNetworkList(source).plugins.map(({ type }) => type)).toEqual(["bridge", "first", "second"]);
    expect(types(write("11.conflist", list({ loadOnlyInlinedPlugins: true })))).toEqual(["bridge"]);
    expect(types(write("12.conflist", '{"name":"net"}'))).toEqual(["first", "second"]);
    expect(() => loadNetworkList(write("13.conflist", '{"name":"other"}'))).toThrow(
      "no plugin configs found",
    );
  });
});
