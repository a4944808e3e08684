import { expect, test } from "bun:test";
import { credentialsFor, credentialsOf } from "./pull-secrets.ts";

const secret = (key: string, value: object) => new Map([[key, Buffer.from(JSON.stringify(value))]]);
const config = (...locations: readonly string[]) =>
  credentialsOf([
    secret(".dockerconfigjson", {
      auths: Object.fromEntries(
        locations.map((location) => [location, { username: location, password: "p" }]),
      ),
    }),
  ]);
const chosen = (image: string, ...locations: readonly string[]): string[] =>
  credentialsFor(image, config(...locations)).map(({ username }) => username);

test("both kinds of secret; the runtime is told no server's address", () => {
  const auth = Buffer.from("me:pass:word").toString("base64");
  const found = credentialsOf([
    secret(".dockerconfigjson", { auths: { "reg.test": { auth } } }),
    secret(".dockercfg", { "https://other.test/v1/": { username: "u", password: "p" } }),
  ]);
  expect(
    found.map(({ registry, auth: { username, password, serverAddress } }) => [
      ...[registry, username, password, serverAddress],
    ]),
  ).toEqual([
    ["reg.test", "me", "pass:word", ""],
    ["other.test", "u", "p", ""],
  ]);
});

test("a host with its port, a path's beginning, parts of a name; the most specific first", () => {
  expect(chosen("127.0.0.1:5000/a/b:1", "127.0.0.1:5000", "127.0.0.1", "127.0.0.1:5001")).toEqual([
    "127.0.0.1:5000",
  ]);
  expect(chosen("reg.test/team/box", "reg.test", "http://reg.test/team/", "reg.test/other")).toEqual([
    "http://reg.test/team/",
    "reg.test",
  ]);
  expect(chosen("a.reg.test/box", "*.reg.test", "reg.test", "?.reg.test", "*.test", "b.reg.test")).toEqual([
    "?.reg.test",
    "*.reg.test",
  ]);
  expect(chosen("areg.test/box", "a.eg.test", "reg.test")).toEqual([]);
});

test("names without a host are the default registry's", () => {
  const hub = "https://index.docker.io/v1/";
  for (const image of ["box", "me/box:1", "docker.io/me/box"])
    expect(chosen(image, hub, "reg.test")).toEqual([hub]);
  expect(chosen("me/box", "docker.io/me", hub)).toEqual(["docker.io/me"]);
  expect(chosen("localhost/box", hub)).toEqual([]);
});
