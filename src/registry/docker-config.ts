import { readFileSync } from "node:fs";
import { join } from "node:path";
import { endOf, type Finished, runProgram } from "../lib/program.ts";
import { BunkerdError, messageOf, quote } from "../model/errors.ts";
import type { CredentialSource, Credentials } from "../model/remotes.ts";

/*
 * What `docker login` leaves in `config.json` (docker/cli `cli/config/configfile`): secrets by host, or the name of a program that keeps them
 * (docker/docker-credential-helpers).
 */

const MAX_CONFIG_BYTES = 4 << 20;
const HELPER_TIMEOUT_MS = 30_000;

/** What a helper says who has no such secret. */
const NOT_FOUND = "credentials not found in native keychain";
/** The user name that stands for an identity token. */
const TOKEN_USER = "<token>";

type Json = Readonly<Record<string, unknown>>;

/** Asks the file in `folder`, read anew each time. Without the file, or without the host in it: nobody. */
export function dockerCredentials(folder: string): CredentialSource {
  const file = join(folder, "config.json");
  return async ({ host }) => {
    const config = readConfig(file);
    if (config === undefined) return undefined;
    for (const key of keysOf(host)) {
      const helper = helperOf(config, key);
      const found = helper === undefined ? entryOf(config, key, file) : await askHelper(helper, key);
      if (found !== undefined) return found;
    }
    return undefined;
  };
}

/** Docker Hub's secrets are kept under the address that its first registry had. */
function keysOf(host: string): string[] {
  const hub = ["https://index.docker.io/v1/", "index.docker.io", "docker.io"];
  return host === "registry-1.docker.io" || host === "docker.io" ? hub : [host];
}

/** @throws InvalidArgument naming the file; never its content */
function readConfig(file: string): Json | undefined {
  let bytes: Buffer;
  try {
    bytes = readFileSync(file);
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw new BunkerdError("InvalidArgument", `read ${file}: ${messageOf(cause)}`, { cause });
  }
  const config = bytes.length > MAX_CONFIG_BYTES ? undefined : parseObject(bytes.toString("utf8"));
  if (config === undefined) throw new BunkerdError("InvalidArgument", `${file}: not a JSON object`);
  return config;
}

/** Undefined for what is none: a parser's message would repeat secrets. */
function parseObject(text: string): Json | undefined {
  try {
    return objectIn(JSON.parse(text));
  } catch {
    return undefined;
  }
}

function objectIn(value: unknown): Json | undefined {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Json) : undefined;
}

function helperOf(config: Json, key: string): string | undefined {
  const helpers = objectIn(config["credHelpers"]) ?? {};
  const named = Object.hasOwn(helpers, key) ? helpers[key] : config["credsStore"];
  return typeof named === "string" && named !== "" ? named : undefined;
}

/** Keys may be written as URLs: `https://registry.example/v1/`. */
function entryOf(config: Json, key: string, file: string): Credentials | undefined {
  const entries = Object.entries(objectIn(config["auths"]) ?? {});
  const [, value] =
    entries.find(([name]) => name === key) ?? entries.find(([name]) => hostIn(name) === hostIn(key)) ?? [];
  const entry = objectIn(value);
  if (entry === undefined) return undefined;
  const text = (name: string): string => (typeof entry[name] === "string" ? entry[name] : "");
  if (text("identitytoken") !== "") return { secret: text("identitytoken") };
  if (text("registrytoken") !== "") return { header: `Bearer ${text("registrytoken")}` };
  if (text("auth") === "")
    return text("password") === "" ? undefined : { username: text("username"), secret: text("password") };
  const pair = Buffer.from(text("auth"), "base64").toString("utf8");
  const colon = pair.indexOf(":");
  if (colon <= 0) throw new BunkerdError("InvalidArgument", `${file}: auths: invalid auth for ${quote(key)}`);
  return { username: pair.slice(0, colon), secret: pair.slice(colon + 1).replace(/\0+$/, "") };
}

function hostIn(key: string): string {
  return key.replace(/^https?:\/\//, "").split("/", 1)[0] ?? "";
}

/** Runs `docker-credential-<helper> get`. @throws Unknown, without what it wrote where that may be a secret */
async function askHelper(helper: string, key: string): Promise<Credentials | undefined> {
  if (!/^[A-Za-z0-9_.-]+$/.test(helper)) {
    throw new BunkerdError("InvalidArgument", `credential helper ${quote(helper)}: not a name`);
  }
  const program = `docker-credential-${helper}`;
  const about = `credential helper ${program} for ${quote(key)}`;
  const finished = await start(program, key, about);
  const stdout = Buffer.from(finished.stdout).toString("utf8");
  if (stdout.trim() === NOT_FOUND) return undefined;
  if (finished.stopped !== undefined) {
    throw new BunkerdError("Unknown", `${about}: no answer in ${HELPER_TIMEOUT_MS / 1000} s`);
  }
  if (finished.exitCode !== 0) throw new BunkerdError("Unknown", `${about}: ${endOf(finished)}`);
  const answer = parseObject(stdout);
  const [username, secret] = [answer?.["Username"], answer?.["Secret"]];
  if (typeof username !== "string" || typeof secret !== "string" || secret === "") {
    throw new BunkerdError("Unknown", `${about}: no credentials in its answer`);
  }
  return username === TOKEN_USER || username === "" ? { secret } : { username, secret };
}

async function start(program: string, key: string, about: string): Promise<Finished> {
  try {
    const [stdin, env] = [Buffer.from(key), process.env];
    return await runProgram({
      args: [program, "get"],
      env,
      stdin,
      timeoutMs: HELPER_TIMEOUT_MS,
      killGroup: true,
    });
  } catch (cause) {
    throw new BunkerdError("Unknown", `${about}: ${messageOf(cause)}`, { cause });
  }
}
