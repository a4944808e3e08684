import { afterAll, describe, expect, test } from "bun:test";
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { dockerCredentials } from "./docker-config.ts";

const folder = mkdtempSync(join(tmpdir(), "bunkerd-docker-"));
const path = process.env["PATH"];
afterAll(() => {
  process.env["PATH"] = path;
  rmSync(folder, { recursive: true });
});

const ask = async (config: unknown, host = "reg.example:5000") => {
  writeFileSync(join(folder, "config.json"), typeof config === "string" ? config : JSON.stringify(config));
  return await dockerCredentials(folder)({ host, challenges: [] });
};
const auth = Buffer.from("me:pass:word").toString("base64");

describe("Docker's config.json", () => {
  test.each([
    [{ "reg.example:5000": { auth } }, "reg.example:5000", { username: "me", secret: "pass:word" }],
    [
      { "https://reg.example:5000/v1/": { auth } },
      "reg.example:5000",
      { username: "me", secret: "pass:word" },
    ],
    [{ "reg.example:5000": { auth, identitytoken: "id" } }, "reg.example:5000", { secret: "id" }],
    [{ "reg.example:5000": { registrytoken: "t" } }, "reg.example:5000", { header: "Bearer t" }],
    [
      { "https://index.docker.io/v1/": { auth } },
      "registry-1.docker.io",
      { username: "me", secret: "pass:word" },
    ],
    [{ "reg.example": { auth } }, "reg.example:5000", undefined],
    [{}, "reg.example:5000", undefined],
  ])("%j for %s", async (auths, host, expected) => {
    expect(await ask({ auths }, host)).toEqual(expected);
  });

  test("no file, no credentials", async () => {
    expect(await dockerCredentials(join(folder, "none"))({ host: "x", challenges: [] })).toBeUndefined();
  });

  test("a broken file is named and not repeated", async () => {
    const failure = await ask('{"auths": "c2VjcmV0').catch((error: Error) => error);
    expect(failure).toMatchObject({
      code: "InvalidArgument",
      message: `${folder}/config.json: not a JSON object`,
    });
  });
});

describe("credential helpers", () => {
  const helper = (name: string, script: string) => {
    const file = join(folder, `docker-credential-${name}`);
    writeFileSync(file, `#!/bin/sh\n${script}\n`);
    chmodSync(file, 0o755);
    process.env["PATH"] = `${folder}:${path}`;
  };

  test("one for a host, asked by its name on standard input", async () => {
    helper("one", `read host; [ "$1" = get ] && printf '{"Username":"u","Secret":"of %s"}' "$host"`);
    expect(await ask({ credHelpers: { "reg.example:5000": "one" } })).toEqual({
      username: "u",
      secret: "of reg.example:5000",
    });
  });

  test("a token's user name makes it an identity token", async () => {
    helper("two", `echo '{"Username":"<token>","Secret":"t"}'`);
    expect(await ask({ credsStore: "two" })).toEqual({ secret: "t" });
  });

  test("that has none says so; that fails is named without its words", async () => {
    helper("three", "echo credentials not found in native keychain; exit 1");
    expect(await ask({ credsStore: "three" })).toBeUndefined();
    helper("four", "echo my-secret; exit 3");
    const failure = await ask({ credsStore: "four" }).catch((error: Error) => error);
    expect(failure).toMatchObject({ code: "Unknown" });
    expect(String(failure)).toContain("docker-credential-four");
    expect(String(failure)).not.toContain("my-secret");
  });

  test("that is not there is named", async () => {
    await expect(ask({ credsStore: "none-such" })).rejects.toThrow(
      "credential helper docker-credential-none-such",
    );
  });

  test("is a name, not a path", async () => {
    await expect(ask({ credsStore: "../../bin/sh" })).rejects.toMatchObject({ code: "InvalidArgument" });
  });
});
