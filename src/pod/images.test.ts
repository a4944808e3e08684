import { expect, test } from "bun:test";
import { authsOf, defaultPolicy, withDefaultTag } from "./images.ts";

test("an image without tag and digest is the latest, which is always asked for", () => {
  expect(withDefaultTag("box")).toBe("box:latest");
  expect(withDefaultTag("reg.test:5000/a/box")).toBe("reg.test:5000/a/box:latest");
  expect(withDefaultTag("box:1")).toBe("box:1");
  const digest = `box@sha256:${"0".repeat(64)}`;
  expect(withDefaultTag(digest)).toBe(digest);
  expect(["box", "box:latest", "box:1", digest].map(defaultPolicy)).toEqual([
    "Always",
    "Always",
    "IfNotPresent",
    "IfNotPresent",
  ]);
});

test.each(["Box", "box:", "a//b", "box@sha256:xyz", "box:a b", ""])("%p names no image", (image) => {
  expect(() => withDefaultTag(image)).toThrow(`couldn't parse image name ${JSON.stringify(image)}`);
});

test("credentials of both kinds of secret", () => {
  const auth = Buffer.from("me:pass:word").toString("base64");
  const secret = (key: string, value: object) => new Map([[key, Buffer.from(JSON.stringify(value))]]);
  const found = authsOf([
    secret(".dockerconfigjson", { auths: { "reg.test": { auth } } }),
    secret(".dockercfg", { "https://other.test/v1/": { username: "u", password: "p" } }),
  ]);
  expect(found.map(({ serverAddress, username, password }) => [serverAddress, username, password])).toEqual([
    ["reg.test", "me", "pass:word"],
    ["https://other.test/v1/", "u", "p"],
  ]);
});
