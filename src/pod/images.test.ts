import { expect, test } from "bun:test";
import { BunkerdError } from "../model/errors.ts";
import { pullWords } from "./errors.ts";
import { defaultPolicy, pullFailure, withDefaultTag } from "./images.ts";

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

test("a pull's failure: the runtime's own reason if CRI knows it, an unknown code is left away", () => {
  const failure = (code: "Unknown" | "Unavailable", message: string) =>
    pullFailure("box:1", pullWords(new BunkerdError(code, message)));
  expect(failure("Unknown", "RegistryUnavailable: no answer")).toEqual({
    reason: "RegistryUnavailable",
    message: "image pull failed for box:1 because the registry is unavailable: no answer",
  });
  expect(failure("Unknown", "SignatureValidationFailed: no key")).toEqual({
    reason: "SignatureValidationFailed",
    message: "image pull failed for box:1 because the signature validation failed: no key",
  });
  expect(failure("Unknown", "gone")).toEqual({ reason: "ErrImagePull", message: "gone" });
  expect(failure("Unavailable", "RegistryUnavailable: no answer")).toEqual({
    reason: "ErrImagePull",
    message: "rpc error: code = Unavailable desc = RegistryUnavailable: no answer",
  });
});
