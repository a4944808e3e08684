import { expect, test } from "bun:test";
import { defaultPolicy, withDefaultTag } from "./images.ts";

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
