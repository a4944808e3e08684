/** This machine's kernel has no AppArmor, but Debian's parser says whether it understands the profile. */
import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { debianPackage } from "../../../test/support/debian.ts";
import { run } from "../../../test/support/processes.ts";
import { type ApparmorHost, DEFAULT_PROFILE, defaultProfile, loadDefaultProfile } from "./apparmor.ts";

const folder = mkdtempSync(join(tmpdir(), "bk-apparmor-"));
afterAll(() => rmSync(folder, { recursive: true }));

const debian = await debianPackage("bookworm", "apparmor");
const parser = join(debian, "sbin/apparmor_parser");
const includes = join(debian, "etc/apparmor.d");
const profilesPath = join(folder, "profiles");

function hostWith(program: string): ApparmorHost {
  return { profilesPath, parser: program, includes, daemonProfile: "bunkerd" };
}

/** A parser that keeps what it is given, since there is no kernel to give it to; or refuses it. */
function parserThat(script: string): string {
  const path = join(folder, "parser");
  writeFileSync(path, `#!/bin/sh\n${script}\n`, { mode: 0o755 });
  return path;
}

describe("AppArmor's default profile", () => {
  test.each([includes, join(folder, "none")])("compiles with the includes of %s", async (at) => {
    const profile = join(folder, "profile");
    writeFileSync(profile, defaultProfile({ ...hostWith(parser), includes: at }));
    const compiled = await run([parser, "--skip-kernel-load", "--skip-cache", "--base", at, profile]);
    expect({ code: compiled.code, stderr: compiled.stderr }).toEqual({
      code: 0,
      stderr: expect.not.stringContaining("syntax error"),
    });
    writeFileSync(profile, readFileSync(profile, "utf8").replace("deny mount,", "deny mounts,"));
    expect((await run([parser, "--skip-kernel-load", "--skip-cache", "--base", at, profile])).code).not.toBe(
      0,
    );
  });

  test("is loaded once", async () => {
    const kept = join(folder, "kept");
    const host = hostWith(parserThat(`[ "$1" = -Kr ] && cp "$2" ${kept}`));
    writeFileSync(profilesPath, "docker-default (enforce)\n");
    expect(await loadDefaultProfile(host)).toBe(DEFAULT_PROFILE);
    expect(readFileSync(kept, "utf8")).toBe(defaultProfile(host));
    expect(readFileSync(kept, "utf8")).toContain("signal (receive) peer=bunkerd,");
    rmSync(kept);
    writeFileSync(profilesPath, `${DEFAULT_PROFILE} (enforce)\n`);
    expect(await loadDefaultProfile(host)).toBe(DEFAULT_PROFILE);
    expect(() => readFileSync(kept)).toThrow("ENOENT");
  });

  test("that the kernel refuses is an error with the parser's words", async () => {
    writeFileSync(profilesPath, "");
    const host = hostWith(parserThat("echo no room >&2; exit 1"));
    await expect(loadDefaultProfile(host)).rejects.toThrow(
      /load apparmor profile "cri-containerd.apparmor.d": .*no room/s,
    );
  });
});
