/** Debian's docker-registry on a loopback port, filled by plain HTTP. */
import { mkdirSync, openSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { debianPackage } from "./debian.ts";
import { start } from "./processes.ts";
import type { BuiltImage } from "./tar.ts";

export interface Registry {
  /** `127.0.0.1:port` */
  readonly host: string;
  stop(): Promise<void>;
}

/** Parts of its configuration (`http.tls`, `auth`): the registry then answers by TLS, or 401 to strangers. */
export interface RegistrySettings {
  readonly tls?: Readonly<Record<string, unknown>>;
  readonly auth?: Readonly<Record<string, unknown>>;
}

/** Starts a registry that keeps its files in `folder`; it ends with the test at the latest. @throws with its log */
export async function startRegistry(
  folder: string,
  port: number,
  { tls, auth }: RegistrySettings = {},
): Promise<Registry> {
  mkdirSync(folder, { recursive: true });
  const host = `127.0.0.1:${port}`;
  const config = {
    version: "0.1",
    storage: { filesystem: { rootdirectory: join(folder, "data") }, delete: { enabled: true } },
    http: { addr: host, ...(tls === undefined ? {} : { tls }) },
    log: { level: "warn" },
    ...(auth === undefined ? {} : { auth }),
  };
  // JSON is YAML.
  writeFileSync(join(folder, "config.yml"), JSON.stringify(config));
  const log = openSync(join(folder, "log"), "a");
  const program = join(await debianPackage("bookworm", "docker-registry"), "usr/bin/docker-registry");
  const child = start([program, "serve", join(folder, "config.yml")], {
    stdin: "ignore",
    stdout: log,
    stderr: log,
  });
  const deadline = performance.now() + 30_000;
  for (;;) {
    if (await answers(host)) break;
    if (child.exitCode !== null || performance.now() > deadline) {
      throw new Error(`docker-registry does not answer: ${readFileSync(join(folder, "log"), "utf8")}`);
    }
    await Bun.sleep(10);
  }
  return {
    host,
    async stop() {
      child.kill("SIGTERM");
      await child.exited;
    },
  };
}

/** Of the network namespace that this thread is in, which fetch's is not. */
async function answers(host: string): Promise<boolean> {
  const [hostname = "", port] = host.split(":");
  try {
    const socket = await Bun.connect({ hostname, port: Number(port), socket: { data: () => undefined } });
    socket.end();
    return true;
  } catch {
    return false;
  }
}

/** Puts an image under `repository:tag`, by requests with the headers that are given. @throws with the registry's answer */
export async function pushImage(
  { host }: Registry,
  repository: string,
  tag: string,
  image: BuiltImage,
  given: Readonly<Record<string, string>> = {},
): Promise<void> {
  for (const [digest, bytes] of image.blobs) {
    if (digest === image.manifest.digest) continue;
    const begun = await expectOk(
      await fetch(`http://${host}/v2/${repository}/blobs/uploads/`, { method: "POST", headers: given }),
    );
    const url = new URL(begun.headers.get("location") ?? "", `http://${host}`);
    url.searchParams.set("digest", digest);
    await expectOk(
      await fetch(url, { method: "PUT", headers: given, body: bytes as Uint8Array<ArrayBuffer> }),
    );
  }
  const { digest, mediaType } = image.manifest;
  const body = image.blobs.get(digest) as Uint8Array<ArrayBuffer>;
  const headers = { ...given, "content-type": mediaType };
  await expectOk(
    await fetch(`http://${host}/v2/${repository}/manifests/${tag}`, { method: "PUT", headers, body }),
  );
}

async function expectOk(answer: Response): Promise<Response> {
  if (!answer.ok) throw new Error(`${answer.url}: ${answer.status} ${await answer.text()}`);
  return answer;
}
