import { describe, expect, test } from "bun:test";
import { podResult } from "./pod-result.ts";
import { readResult, writeResult } from "./result.ts";

const NEW = {
  cniVersion: "1.1.0",
  interfaces: [
    { name: "cni0", mac: "aa:bb:cc:dd:ee:01" },
    { name: "eth0", mac: "aa:bb:cc:dd:ee:02", mtu: 1450, sandbox: "/var/run/netns/a", pciID: "0000:00:1f.6" },
  ],
  ips: [
    { interface: 1, address: "10.1.0.5/16", gateway: "10.1.0.1" },
    { interface: 1, address: "fd00::5/64", gateway: "fd00::1" },
  ],
  routes: [
    { dst: "0.0.0.0/0", gw: "10.1.0.1", mtu: 1400 },
    { dst: "::/0", gw: "fd00::1" },
  ],
  dns: { nameservers: ["10.1.0.1"], search: ["example"] },
};

describe("versions", () => {
  test("1.0.0 and 1.1.0 pass as they are", () => {
    expect(writeResult(readResult(NEW), "1.1.0")).toEqual(NEW);
    expect(writeResult(readResult(NEW), "1.0.0")).toEqual({ ...NEW, cniVersion: "1.0.0" });
  });

  test.each(["0.3.0", "0.3.1", "0.4.0"])(
    "%s has the family at each address, and less of an interface",
    (cniVersion) => {
      const old = writeResult(readResult(NEW), cniVersion);
      expect(old).toEqual({
        ...NEW,
        cniVersion,
        interfaces: [
          { name: "cni0", mac: "aa:bb:cc:dd:ee:01" },
          { name: "eth0", mac: "aa:bb:cc:dd:ee:02", sandbox: "/var/run/netns/a" },
        ],
        ips: [
          { version: "4", interface: 1, address: "10.1.0.5/16", gateway: "10.1.0.1" },
          { version: "6", interface: 1, address: "fd00::5/64", gateway: "fd00::1" },
        ],
      });
      expect(writeResult(readResult(old), "1.0.0")["ips"]).toEqual(NEW.ips);
    },
  );

  test.each(["0.1.0", "0.2.0"])("%s has one address of each family", (cniVersion) => {
    const oldest = writeResult(readResult(NEW), cniVersion);
    expect(oldest).toEqual({
      cniVersion,
      ip4: { ip: "10.1.0.5/16", gateway: "10.1.0.1", routes: [{ dst: "0.0.0.0/0", gw: "10.1.0.1" }] },
      ip6: { ip: "fd00::5/64", gateway: "fd00::1", routes: [{ dst: "::/0", gw: "fd00::1" }] },
      dns: NEW.dns,
    });
    const { ips, routes, interfaces } = readResult(oldest);
    expect([ips.map(({ address }) => address), routes.map(({ dst }) => dst), interfaces]).toEqual([
      ["10.1.0.5/16", "fd00::5/64"],
      ["0.0.0.0/0", "::/0"],
      [],
    ]);
    expect(() => writeResult(readResult({ cniVersion: "1.0.0" }), cniVersion)).toThrow(
      "no valid IP addresses",
    );
  });

  test.each([
    ["an unknown version", { cniVersion: "9.0.0" }, /unsupported CNI result version "9.0.0"/],
    [
      "an address without a prefix",
      { cniVersion: "1.0.0", ips: [{ address: "10.0.0.1" }] },
      /invalid CIDR address: "10.0.0.1"/,
    ],
    ["a prefix that is too long", { cniVersion: "1.0.0", ips: [{ address: "10.0.0.1/33" }] }, /invalid CIDR/],
    [
      "a gateway that is none",
      { cniVersion: "1.0.0", ips: [{ address: "10.0.0.1/8", gateway: "x" }] },
      /invalid IP address: "x"/,
    ],
    ["a route without a network", { cniVersion: "1.0.0", routes: [{}] }, /invalid CIDR address: ""/],
    ["addresses that are no list", { cniVersion: "1.0.0", ips: {} }, /ips is no list/],
  ])("%s is refused", (_what, json, message) => {
    expect(() => readResult(json)).toThrow(message);
  });
});

describe("of a pod", () => {
  const loopback = readResult({
    cniVersion: "0.3.1",
    interfaces: [{ name: "lo", sandbox: "/n" }],
    ips: [{ version: "4", interface: 0, address: "127.0.0.1/8" }],
  });

  test("interfaces, addresses, routes and DNS are in the reference's shape", () => {
    const { ip, additionalIps, result } = podResult([loopback, readResult(NEW)], "");
    expect([ip, additionalIps]).toEqual(["10.1.0.5", ["fd00::5"]]);
    expect(JSON.parse(JSON.stringify(result))).toEqual({
      Interfaces: {
        cni0: { IPConfigs: null, Mac: "aa:bb:cc:dd:ee:01", Sandbox: "", PciID: "", SocketPath: "" },
        eth0: {
          IPConfigs: [
            { IP: "10.1.0.5", Gateway: "10.1.0.1" },
            { IP: "fd00::5", Gateway: "fd00::1" },
          ],
          Mac: "aa:bb:cc:dd:ee:02",
          Sandbox: "/var/run/netns/a",
          PciID: "0000:00:1f.6",
          SocketPath: "",
        },
        lo: {
          IPConfigs: [{ IP: "127.0.0.1", Gateway: "" }],
          Mac: "",
          Sandbox: "/n",
          PciID: "",
          SocketPath: "",
        },
      },
      DNS: [{}, NEW.dns],
      Routes: NEW.routes,
    });
  });

  const dual = (...addresses: string[]) =>
    readResult({ cniVersion: "1.0.0", ips: addresses.map((address) => ({ address })) });
  test.each([
    ["", ["fd00::1/64", "10.0.0.1/8", "fd00::2/64"], ["10.0.0.1", "fd00::1", "fd00::2"]],
    ["ipv4", ["fd00::1/64", "10.0.0.1/8"], ["10.0.0.1", "fd00::1"]],
    ["ipv6", ["10.0.0.1/8", "fd00::1/64"], ["fd00::1", "10.0.0.1"]],
    ["cni", ["fd00::1/64", "10.0.0.1/8"], ["fd00::1", "10.0.0.1"]],
    ["ipv6", ["10.0.0.1/8"], ["10.0.0.1"]],
    ["", ["FD00:0::0:1/64"], ["fd00::1"]],
    ["", ["::ffff:10.0.0.1/104"], ["10.0.0.1"]],
  ])("preference %j of %j", (preference, addresses, expected) => {
    const { ip, additionalIps } = podResult([dual(...addresses)], preference);
    expect([ip, ...additionalIps]).toEqual(expected);
  });

  test("a pod without an address on eth0 has no network", () => {
    expect(() => podResult([loopback], "")).toThrow(/eth0 has no address/);
    const wrong = readResult({ cniVersion: "1.0.0", ips: [{ interface: 3, address: "10.0.0.1/8" }] });
    expect(() => podResult([wrong], "")).toThrow(/interface 3 of 10.0.0.1\/8: invalid result/);
  });
});
