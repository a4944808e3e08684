/** The registry room against Debian's docker-registry: plain, by TLS, with passwords, with tokens, behind mirrors and bad networks. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { randomBytes } from "node:crypto";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createServer, type Server, Socket } from "node:net";
import { join } from "node:path";
import { type Logger, silentLogger } from "../../src/lib/log.ts";
import type { OciDescriptor } from "../../src/model/oci.ts";
import type { CredentialRequest, Credentials } from "../../src/model/remotes.ts";
import { createResolver, type ResolverOptions } from "../../src/registry/resolver.ts";
import { freePort } from "../support/ports.ts";
import { removeFolder, temporaryFolder } from "../support/processes.ts";
import { type Registry, startRegistry } from "../support/registry.ts";
import { makeCertificates, makeTokenKeys, startTokenServer } from "../support/registry-guards.ts";
import { digestOf } from "../support/tar.ts";

const folder = temporaryFolder();
const registries: Registry[] = [];
const servers: { stop(force?: boolean): unknown }[] = [];
afterAll(async () => {
  await Promise.all(registries.map(async (registry) => await registry.stop()));
  for (const server of servers) await server.stop(true);
  removeFolder(folder);
});

const LAYER = "application/vnd.oci.image.layer.v1.tar";
const CONFIG = "application/vnd.oci.image.config.v1+json";
const MANIFEST = "application/vnd.oci.image.manifest.v1+json";

const resolverOf = (options: Partial<ResolverOptions> = {}) =>
  createResolver({ logger: silentLogger, ...options });
const codeOf = async (work: Promise<unknown>): Promise<{ code: string; message: string }> =>
  await work.then(
    () => ({ code: "OK", message: "" }),
    (error: Error & { code: string }) => ({ code: error.code, message: error.message }),
  );

async function launch(name: string, settings?: Parameters<typeof startRegistry>[2]): Promise<Registry> {
  const registry = await startRegistry(join(folder, name), await freePort(), settings);
  registries.push(registry);
  return registry;
}

function certs(name: string, host: string, files: Readonly<Record<string, string>>): string {
  const root = join(folder, name);
  mkdirSync(join(root, host), { recursive: true });
  for (const [file, text] of Object.entries(files)) writeFileSync(join(root, host, file), text);
  return root;
}

const blobOf = (bytes: Uint8Array, mediaType = LAYER): OciDescriptor => ({
  mediaType,
  digest: digestOf(bytes),
  size: bytes.length,
});

async function* once(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += 65_536) yield bytes.subarray(at, at + 65_536);
}

async function read(pieces: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  for await (const piece of pieces) parts.push(piece);
  return Buffer.concat(parts);
}

/** Pushes an image of one layer. */
async function pushImage(reference: string, layer: Uint8Array, options: Partial<ResolverOptions> = {}) {
  const pusher = await resolverOf(options).pusher(reference);
  const config = Buffer.from("{}");
  const manifest = Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: MANIFEST,
      config: blobOf(config, CONFIG),
      layers: [blobOf(layer)],
    }),
  );
  const descriptor = blobOf(manifest, MANIFEST);
  const outcomes = [
    await pusher.push(blobOf(layer), () => once(layer)),
    await pusher.push(blobOf(config, CONFIG), () => once(config)),
    await pusher.push(descriptor, () => once(manifest)),
  ];
  return { descriptor, manifest, outcomes };
}

/** Forwards connections; `cutAfter` answers how many bytes of the answers of the n-th go through, `cuts` whether what was sent is too much. */
async function cuttingProxy(
  target: string,
  cutAfter: (connection: number) => number,
  cuts: (sentBytes: number) => boolean = () => false,
): Promise<string> {
  let connections = 0;
  const sockets = new Set<Socket>();
  const server: Server = createServer((client) => {
    let left = cutAfter(connections++);
    const upstream = new Socket();
    for (const socket of [client, upstream]) {
      sockets.add(socket);
      socket.on("error", () => undefined);
      socket.on("close", () => sockets.delete(socket));
    }
    upstream.connect(Number(target.split(":")[1]), "127.0.0.1");
    let sent = 0;
    client.on("data", (data: Buffer) => {
      sent += data.length;
      if (cuts(sent)) {
        client.destroy();
        upstream.destroy();
      } else upstream.write(data);
    });
    client.on("end", () => upstream.end());
    upstream.on("data", (data: Buffer) => {
      client.write(data.subarray(0, left));
      left -= data.length;
      if (left <= 0) {
        client.end(() => client.destroy());
        upstream.destroy();
      }
    });
    upstream.on("end", () => client.end());
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  servers.push({
    stop: () => {
      for (const socket of sockets) socket.destroy();
      server.close();
    },
  });
  return `127.0.0.1:${(server.address() as { port: number }).port}`;
}

let plain: Registry;
const layer = randomBytes(6 << 20);
beforeAll(async () => {
  plain = await launch("plain");
  await pushImage(`${plain.host}/a/b:t`, layer);
});

describe("plain", () => {
  test("what is pushed is resolved and fetched", async () => {
    const { descriptor, manifest, outcomes } = await pushImage(
      `${plain.host}/own/image:1`,
      randomBytes(100_000),
    );
    expect(outcomes.map(({ kind }) => kind)).toEqual(["pushed", "pushed", "pushed"]);
    const resolver = resolverOf();
    const resolved = await resolver.resolve(`${plain.host}/own/image:1`);
    expect(resolved).toEqual({ name: `${plain.host}/own/image:1`, descriptor });
    const fetcher = await resolver.fetcher(resolved.name);
    expect(await read(fetcher.fetch(descriptor))).toEqual(manifest);
    expect((await resolver.resolve(`${plain.host}/own/image@${descriptor.digest}`)).descriptor).toEqual(
      descriptor,
    );
    resolver.close();
  });

  test("a part of a blob, by offset and length, by one connection and by several", async () => {
    for (const options of [{}, { maxConcurrentDownloads: 3, concurrentLayerFetchBuffer: 1 << 20 }]) {
      const fetcher = await resolverOf(options).fetcher(`${plain.host}/a/b:t`);
      expect(await read(fetcher.fetch(blobOf(layer)))).toEqual(layer);
      expect(await read(fetcher.fetch(blobOf(layer), { offsetBytes: 5_000_001 }))).toEqual(
        layer.subarray(5_000_001),
      );
      const part = fetcher.fetch(blobOf(layer), { offsetBytes: 17, lengthBytes: 3_000_000 });
      expect(await read(part)).toEqual(layer.subarray(17, 3_000_017));
    }
  });

  test("content is found by its digest alone, blob or manifest", async () => {
    const resolver = resolverOf();
    const { descriptor } = await resolver.resolve(`${plain.host}/a/b:t`);
    const fetcher = await resolver.fetcher(`${plain.host}/a/b:t`);
    const manifest = await fetcher.fetchByDigest(descriptor.digest);
    expect(manifest.descriptor.size).toBe(descriptor.size);
    expect(digestOf(await read(manifest.body))).toBe(descriptor.digest);
    expect(await read((await fetcher.fetchByDigest(digestOf(layer), { mediaType: LAYER })).body)).toEqual(
      layer,
    );
    expect(await codeOf(fetcher.fetchByDigest(digestOf(Buffer.from("none"))))).toMatchObject({
      code: "NotFound",
    });
  });

  test("what is there is not pushed again, or mounted from another repository", async () => {
    const pusher = await resolverOf().pusher(`${plain.host}/a/c:t`);
    const never = () => {
      throw new Error("read");
    };
    const annotations = { "containerd.io/distribution.source.127.0.0.1": "q/r,a/b" };
    expect(await pusher.push({ ...blobOf(layer), annotations }, never)).toEqual({
      kind: "mounted",
      from: `${plain.host}/a/b`,
    });
    expect(await pusher.push(blobOf(layer), never)).toEqual({ kind: "exists" });
  });

  test("a tag moves to another manifest; by digest a manifest is put beside it", async () => {
    const first = await pushImage(`${plain.host}/tags/x:t`, Buffer.from("one"));
    const second = await pushImage(`${plain.host}/tags/x:t`, Buffer.from("two"));
    const resolver = resolverOf();
    expect((await resolver.resolve(`${plain.host}/tags/x:t`)).descriptor).toEqual(second.descriptor);
    const pusher = await resolver.pusher(`${plain.host}/tags/x:other@${second.descriptor.digest}`);
    expect(await pusher.push(first.descriptor, () => once(first.manifest))).toEqual({ kind: "exists" });
    expect(await pusher.push(second.descriptor, () => once(second.manifest))).toEqual({ kind: "pushed" });
    expect((await resolver.resolve(`${plain.host}/tags/x:other`)).descriptor).toEqual(second.descriptor);
  });

  test("a source of another size is DataLoss, of another digest what the registry says", async () => {
    const pusher = await resolverOf().pusher(`${plain.host}/a/d:t`);
    const descriptor = blobOf(Buffer.from("right"));
    for (const wrong of ["short".slice(1), "longer"]) {
      expect(await codeOf(pusher.push(descriptor, () => once(Buffer.from(wrong))))).toMatchObject({
        code: "DataLoss",
      });
    }
    const failure = await codeOf(pusher.push(descriptor, () => once(Buffer.from("wrong"))));
    expect(failure.message).toContain("400 Bad Request: digest invalid");
  });

  test("what is not there is NotFound and names the request", async () => {
    const failure = await codeOf(resolverOf().resolve(`${plain.host}/a/b:none`));
    expect(failure).toEqual({
      code: "NotFound",
      message: `tried HEAD http://${plain.host}/v2/a/b/manifests/none: 404 Not Found (default for ${plain.host}): ${plain.host}/a/b:none: not found`,
    });
  });
});

describe("bad networks", () => {
  test.each([
    ["one connection", {}],
    ["several", { maxConcurrentDownloads: 3, concurrentLayerFetchBuffer: 1 << 20 }],
  ])("cut connections are taken up where they ended: %s", async (_, options) => {
    let connections = 0;
    const host = await cuttingProxy(plain.host, (connection) => {
      connections = connection + 1;
      return 900_000;
    });
    const fetcher = await resolverOf(options).fetcher(`${host}/a/b:t`);
    expect((await read(fetcher.fetch(blobOf(layer)))).equals(layer)).toBe(true);
    expect(connections).toBeGreaterThan(5);
  });

  test("connections that bring nothing are given up", async () => {
    const host = await cuttingProxy(plain.host, (connection) => (connection === 0 ? 1_000_000 : 400));
    const fetcher = await resolverOf().fetcher(`${host}/a/b:t`);
    const failure = await codeOf(read(fetcher.fetch(blobOf(layer))));
    expect(failure.code).toBe("Unknown");
    expect(failure.message).toContain("unexpected EOF");
  });

  test("an upload that breaks off begins anew", async () => {
    const bytes = randomBytes(8 << 20);
    let isCut = false;
    const host = await cuttingProxy(
      plain.host,
      () => Number.POSITIVE_INFINITY,
      (sent) => {
        const cuts = sent > 1 << 20 && !isCut;
        isCut ||= cuts;
        return cuts;
      },
    );
    let starts = 0;
    const pusher = await resolverOf().pusher(`${host}/a/e:t`);
    const outcome = await pusher.push(blobOf(bytes), () => {
      starts += 1;
      return once(bytes);
    });
    expect(outcome).toEqual({ kind: "pushed" });
    expect({ starts, isCut }).toEqual({ starts: 2, isCut: true });
  });

  test("a blob that is refused as a whole goes by pieces", async () => {
    const bytes = randomBytes(3 << 20);
    const methods: string[] = [];
    const proxy = Bun.serve({
      port: 0,
      hostname: "127.0.0.1",
      async fetch(request) {
        methods.push(request.method);
        const isLong = request.method === "PUT" && Number(request.headers.get("content-length")) > 1 << 20;
        return isLong ? new Response("", { status: 413 }) : await forward(request, new URL(request.url));
      },
    });
    servers.push(proxy);
    const pusher = await resolverOf().pusher(`127.0.0.1:${proxy.port}/a/f:t`);
    expect(await pusher.push(blobOf(bytes), () => once(bytes))).toEqual({ kind: "pushed" });
    expect(methods).toEqual(["HEAD", "POST", "PUT", "POST", "PATCH", "PUT"]);
    const fetcher = await resolverOf().fetcher(`${plain.host}/a/f:t`);
    expect((await read(fetcher.fetch(blobOf(bytes)))).equals(bytes)).toBe(true);
  });
});

/** To the plain registry, with its Location as a path, as reverse proxies make it. */
async function forward(request: Request, url: URL): Promise<Response> {
  const headers = new Headers(request.headers);
  headers.delete("host");
  const body =
    request.method === "GET" || request.method === "HEAD" ? {} : { body: await request.arrayBuffer() };
  const answer = await fetch(`http://${plain.host}${url.pathname}${url.search}`, {
    method: request.method,
    headers,
    ...body,
  });
  const location = answer.headers.get("location");
  const back = new Headers(answer.headers);
  if (location !== null) back.set("location", location.replace(/^http:\/\/[^/]*/, ""));
  return new Response(answer.body, { status: answer.status, headers: back });
}

describe("TLS", () => {
  let pki: string;
  let registry: Registry;
  beforeAll(async () => {
    pki = await makeCertificates(join(folder, "pki"));
    registry = await launch("tls", {
      tls: { certificate: join(pki, "server.pem"), key: join(pki, "server.key") },
    });
    await pushImage(`${registry.host}/a/b:t`, layer.subarray(0, 1000));
  });
  const host = () => `${registry.host.replace(":", "_")}_`;
  const file = (lines: string) => `server = "https://${registry.host}"\n${lines}\n`;

  test("loopback without a word: TLS is tried first, unverified", async () => {
    expect((await resolverOf().resolve(`${registry.host}/a/b:t`)).descriptor.mediaType).toBe(MANIFEST);
  });

  test("an authority of hosts.toml is trusted, a stranger's is not", async () => {
    const trusting = certs("tls-ca", host(), { "hosts.toml": file(`ca = "${pki}/ca.pem"`) });
    expect(
      (await resolverOf({ hostsDirectory: trusting }).resolve(`${registry.host}/a/b:t`)).descriptor.mediaType,
    ).toBe(MANIFEST);
    const strict = certs("tls-strict", host(), { "hosts.toml": file("") });
    const failure = await codeOf(resolverOf({ hostsDirectory: strict }).resolve(`${registry.host}/a/b:t`));
    expect(failure.code).toBe("Unknown");
    expect(failure.message).toMatch(/failed to verify certificate: .*hosts\.toml/);
    const skipping = certs("tls-skip", host(), { "hosts.toml": file("skip_verify = true") });
    expect(
      (await resolverOf({ hostsDirectory: skipping }).resolve(`${registry.host}/a/b:t`)).descriptor.mediaType,
    ).toBe(MANIFEST);
    // What was opened without a check is not used by who checks.
    expect(
      await codeOf(resolverOf({ hostsDirectory: strict }).resolve(`${registry.host}/a/b:t`)),
    ).toMatchObject({ code: "Unknown" });
  });

  test("Docker's folder of certificates", async () => {
    const folderOnly = certs("tls-docker", host(), { "ca.crt": readFileSync(join(pki, "ca.pem"), "utf8") });
    const options = { hostsDirectory: folderOnly, defaultScheme: "https" };
    expect((await resolverOf(options).resolve(`${registry.host}/a/b:t`)).descriptor.mediaType).toBe(MANIFEST);
  });

  test("a server that wants to see a certificate is shown the one of hosts.toml", async () => {
    const picky = await launch("mtls", {
      tls: {
        certificate: join(pki, "server.pem"),
        key: join(pki, "server.key"),
        clientcas: [join(pki, "ca.pem")],
      },
    });
    const name = `${picky.host.replace(":", "_")}_`;
    const ca = `server = "https://${picky.host}"\nca = "${pki}/ca.pem"\n`;
    const shown = certs("mtls-client", name, {
      "hosts.toml": `${ca}client = [["${pki}/client.pem", "${pki}/client.key"]]\n`,
    });
    expect(await codeOf(resolverOf({ hostsDirectory: shown }).resolve(`${picky.host}/a/b:t`))).toMatchObject({
      code: "NotFound",
    });
    const hidden = certs("mtls-none", name, { "hosts.toml": ca });
    expect(await codeOf(resolverOf({ hostsDirectory: hidden }).resolve(`${picky.host}/a/b:t`))).toMatchObject(
      { code: "Unknown" },
    );
  });

  test("files that cannot be used are named", async () => {
    for (const [line, name] of [
      ["ca", "none.pem"],
      ["client", "none.pem"],
    ]) {
      const broken = certs(`tls-broken-${line}`, host(), { "hosts.toml": file(`${line} = "${name}"`) });
      const failure = await codeOf(resolverOf({ hostsDirectory: broken }).resolve(`${registry.host}/a/b:t`));
      expect(failure.message).toContain(join(broken, host(), "none.pem"));
    }
  });
});

describe("passwords", () => {
  const SECRET = "hunter2-not-to-be-seen";
  let registry: Registry;
  beforeAll(async () => {
    const path = join(folder, "htpasswd");
    writeFileSync(path, `me:${await Bun.password.hash(SECRET, { algorithm: "bcrypt", cost: 4 })}\n`);
    registry = await launch("basic", { auth: { htpasswd: { realm: "test", path } } });
  });

  test("are sent where they are asked for, and never shown", async () => {
    const shown: unknown[] = [];
    const keep = (...words: unknown[]) => void shown.push(words);
    const logger: Logger = {
      trace: keep,
      debug: keep,
      info: keep,
      warn: keep,
      error: keep,
      with: () => logger,
    };
    const asked: CredentialRequest[] = [];
    const credentials = async (request: CredentialRequest): Promise<Credentials> => {
      asked.push(request);
      return { username: "me", secret: SECRET };
    };
    const options = { credentials, logger, dump: keep };
    const { descriptor } = await pushImage(`${registry.host}/a/b:t`, layer.subarray(0, 5000), options);
    const resolver = resolverOf(options);
    expect((await resolver.resolve(`${registry.host}/a/b:t`)).descriptor).toEqual(descriptor);
    const fetcher = await resolver.fetcher(`${registry.host}/a/b:t`);
    expect(digestOf(await read(fetcher.fetch(descriptor)))).toBe(descriptor.digest);
    // Once a session.
    expect(asked).toEqual(
      Array(2).fill({ host: registry.host, challenges: [expect.stringContaining("Basic realm=")] }),
    );
    expect(shown.length).toBeGreaterThan(10);
    for (const secret of [SECRET, Buffer.from(`me:${SECRET}`).toString("base64")]) {
      expect(Bun.inspect(shown, { depth: 10 })).not.toContain(secret);
    }
  });

  test("a wrong one and none are told apart, neither is repeated", async () => {
    const wrong = await codeOf(
      resolverOf({ credentials: async () => ({ username: "me", secret: "wrong-secret" }) }).resolve(
        `${registry.host}/a/b:t`,
      ),
    );
    expect(wrong.code).toBe("Unknown");
    expect(wrong.message).toContain("401 Unauthorized");
    expect(wrong.message).not.toContain("wrong-secret");
    const none = await codeOf(resolverOf().resolve(`${registry.host}/a/b:t`));
    expect(none.message).toContain(
      "pull access denied, repository does not exist or may require authorization: authorization failed: no basic auth credentials",
    );
  });

  test("Docker's config.json has them", async () => {
    const at = join(folder, "docker");
    mkdirSync(at);
    const auth = Buffer.from(`me:${SECRET}`).toString("base64");
    writeFileSync(join(at, "config.json"), JSON.stringify({ auths: { [registry.host]: { auth } } }));
    const resolved = await resolverOf({ dockerConfigDirectory: at }).resolve(`${registry.host}/a/b:t`);
    expect(resolved.descriptor.mediaType).toBe(MANIFEST);
  });

  test("a whole header, of credentials or of hosts.toml", async () => {
    const header = `Basic ${Buffer.from(`me:${SECRET}`).toString("base64")}`;
    const resolver = resolverOf({ credentials: async () => ({ header }) });
    expect((await resolver.resolve(`${registry.host}/a/b:t`)).descriptor.mediaType).toBe(MANIFEST);
    const text = `server = "http://${registry.host}"\n[header]\nAuthorization = "${header}"\n`;
    const hostsDirectory = certs("basic-header", "_default", { "hosts.toml": text });
    expect(
      (await resolverOf({ hostsDirectory }).resolve(`${registry.host}/a/b:t`)).descriptor.mediaType,
    ).toBe(MANIFEST);
  });
});

describe("tokens", () => {
  let keys: string;
  beforeAll(async () => {
    keys = await makeTokenKeys(join(folder, "token"));
  });
  const start = async (name: string, takesPost: boolean) => {
    const server = startTokenServer(keys, takesPost);
    servers.push(server);
    const { realm } = server;
    const token = { realm, service: "registry", issuer: "test", rootcertbundle: join(keys, "token.pem") };
    return { ...server, registry: await launch(name, { auth: { token } }) };
  };

  test("are asked for once a scope, by POST with credentials, for all that a session does", async () => {
    const { registry, requests } = await start("token-post", true);
    const options = { credentials: async () => ({ username: "me", secret: "s3cret" }) };
    await pushImage(`${registry.host}/a/b:t`, layer.subarray(0, 5000), options);
    expect(requests).toEqual([{ method: "POST", scopes: ["repository:a/b:pull,push"], user: "me" }]);
    const resolver = resolverOf(options);
    const { descriptor } = await resolver.resolve(`${registry.host}/a/b:t`);
    const fetcher = await resolver.fetcher(`${registry.host}/a/b:t`);
    await Promise.all([1, 2, 3].map(async () => await read(fetcher.fetch(descriptor))));
    expect(requests.slice(1)).toEqual([{ method: "POST", scopes: ["repository:a/b:pull"], user: "me" }]);
    const other = await resolver.pusher(`${registry.host}/a/c:t`);
    const annotations = { "containerd.io/distribution.source.127.0.0.1": "a/b" };
    const mounted = await other.push({ ...blobOf(layer.subarray(0, 5000)), annotations }, () => once(layer));
    expect(mounted).toEqual({ kind: "mounted", from: `${registry.host}/a/b` });
    expect(requests.at(-1)?.scopes).toEqual(["repository:a/b:pull", "repository:a/c:pull,push"]);
  });

  test("a refresh token is sent as one; who has a wrong one learns the server's status", async () => {
    const { registry, requests } = await start("token-refresh", true);
    const missing = await codeOf(
      resolverOf({ credentials: async () => ({ secret: "s3cret" }) }).resolve(`${registry.host}/a/b:t`),
    );
    expect(missing.code).toBe("NotFound");
    expect(requests[0]?.user).toBe("refresh_token");
    const wrong = await codeOf(
      resolverOf({ credentials: async () => ({ secret: "wr0ng" }) }).resolve(`${registry.host}/a/b:t`),
    );
    expect(wrong.message).toMatch(
      /failed to fetch oauth token: unexpected status from token request to .*: 403/,
    );
    expect(wrong.message).not.toContain("wr0ng");
  });

  test("a server without POST is asked by GET; strangers get what strangers may", async () => {
    const { registry, requests } = await start("token-get", false);
    await pushImage(`${registry.host}/a/b:t`, layer.subarray(0, 5000), {
      credentials: async () => ({ username: "me", secret: "s3cret" }),
    });
    expect(requests).toEqual([{ method: "GET", scopes: ["repository:a/b:pull,push"], user: "basic" }]);
    expect((await resolverOf().resolve(`${registry.host}/a/b:t`)).descriptor.mediaType).toBe(MANIFEST);
    const refused = await codeOf(pushImage(`${registry.host}/a/c:t`, layer.subarray(0, 10)));
    expect(refused.message).toContain(
      "push access denied, repository does not exist or may require authorization: server message: insufficient_scope",
    );
  });
});

describe("mirrors", () => {
  test("are asked in their order, each by what it can; who is not the name's host is told the name", async () => {
    const seen: string[] = [];
    const mirror = Bun.serve({
      port: 0,
      hostname: "127.0.0.1",
      fetch(request) {
        const url = new URL(request.url);
        seen.push(
          `${request.method} ${url.pathname.split("/").slice(0, 5).join("/")}${url.search} ${request.headers.get("x-mirror")}`,
        );
        return new Response("", { status: 500 });
      },
    });
    servers.push(mirror);
    const closed = await freePort();
    const text = `
      server = "http://${plain.host}"
      [host."http://127.0.0.1:${closed}"]
      [host."http://127.0.0.1:${mirror.port}"]
      capabilities = ["pull"]
      header = { x-mirror = "yes" }
    `;
    const hostsDirectory = certs("mirrors", "name.example", { "hosts.toml": text });
    const resolver = resolverOf({ hostsDirectory });
    const { descriptor } = await resolver.resolve("name.example/a/b:t");
    // It may pull, not resolve.
    expect(seen).toEqual([]);
    const fetcher = await resolver.fetcher("name.example/a/b:t");
    expect(digestOf(await read(fetcher.fetch(descriptor)))).toBe(descriptor.digest);
    expect(seen).toEqual(["GET /v2/a/b/manifests?ns=name.example yes"]);
    const failure = await codeOf(resolver.resolve("name.example/a/b:none"));
    const file = join(hostsDirectory, "name.example/hosts.toml");
    expect(failure).toEqual({
      code: "NotFound",
      message: [
        `tried HEAD http://127.0.0.1:${closed}/v2/a/b/manifests/none?ns=name.example: connection refused (${file})`,
        `HEAD http://${plain.host}/v2/a/b/manifests/none?ns=name.example: 404 Not Found (${file}): name.example/a/b:none: not found`,
      ].join("; "),
    });
    const pusher = await codeOf(
      resolverOf({
        hostsDirectory: certs("no-push", "_default", {
          "hosts.toml": `server = "http://${plain.host}"\ncapabilities = ["pull"]`,
        }),
      }).pusher("x.example/a:t"),
    );
    expect(pusher).toMatchObject({ code: "NotFound", message: expect.stringContaining("no push hosts") });
  });
});
