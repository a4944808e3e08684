/** Registries that are odd rather than hostile, what goes with a redirect, proxies of the environment, hosts of which one fails. */
import { afterAll, describe, expect, test } from "bun:test";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { connect, createServer, type Server, type Socket } from "node:net";
import { join } from "node:path";
import { silentLogger } from "../../src/lib/log.ts";
import type { OciDescriptor } from "../../src/model/oci.ts";
import { createResolver, type ResolverOptions } from "../../src/registry/resolver.ts";
import { failureOf, oddServers, read } from "../support/odd-servers.ts";
import { removeFolder, temporaryFolder } from "../support/processes.ts";
import { makeCertificates } from "../support/registry-guards.ts";
import { digestOf } from "../support/tar.ts";

const folder = temporaryFolder();
const { serve, serveRaw, stop } = oddServers();
afterAll(async () => {
  await stop();
  removeFolder(folder);
});

const LAYER = "application/vnd.oci.image.layer.v1.tar";
const MANIFEST = "application/vnd.oci.image.manifest.v1+json";
const blob = Buffer.from("the bytes of a blob, more or less");
const layer: OciDescriptor = { mediaType: LAYER, digest: digestOf(blob), size: blob.length };

const resolverOf = (options: Partial<ResolverOptions> = {}) =>
  createResolver({ logger: silentLogger, defaultScheme: "http", ...options });
const fetchLayer = async (name: string, options: Partial<ResolverOptions> = {}) =>
  await read((await resolverOf(options).fetcher(`${name}/a/b:t`)).fetch(layer));
async function* source(): AsyncGenerator<Uint8Array> {
  yield blob;
}

let certs = 0;
/** A `certs.d` that says so of `name.example`, and the file. */
function hosts(text: string): { readonly hostsDirectory: string; readonly file: string } {
  const hostsDirectory = join(folder, `certs-${certs++}`);
  mkdirSync(join(hostsDirectory, "name.example"), { recursive: true });
  const file = join(hostsDirectory, "name.example/hosts.toml");
  writeFileSync(file, text);
  return { hostsDirectory, file };
}

const refusing = (challenge: string) =>
  new Response("", { status: 401, headers: { "www-authenticate": challenge } });
const sendingTo = (url: string) => new Response("", { status: 307, headers: { location: url } });

describe("a host that is redirected to and asks who we are", () => {
  const credentials = async () => ({ username: "me", secret: "s3cret" });
  const seen: string[] = [];
  const note = async (who: string, request: Request): Promise<void> => {
    const [token, ours] = ["authorization", "x-ours"].map((name) => request.headers.get(name));
    seen.push(`${who} ${request.method} ${token} ${ours} ${await request.text()}`);
  };
  const tokens = serve(async (request, { search }) => {
    await note(`tokens ${search}`, request);
    return Response.json({ token: "for-anybody" });
  });

  test("gets a stranger's token, and no password", async () => {
    seen.length = 0;
    const elsewhere = serve(async (request) => {
      await note("elsewhere", request);
      if (request.headers.get("authorization") === "Bearer for-anybody") return new Response(blob);
      return refusing(`Bearer realm="http://${tokens.host}/",scope="repository:x/y:pull"`);
    });
    const { host } = serve(() => sendingTo(`http://${elsewhere.host}/there`));
    const options = { credentials, headers: { "x-ours": "yes" } };
    expect(await fetchLayer(host, options)).toEqual(blob);
    expect(seen).toEqual([
      "elsewhere GET null null ",
      "tokens ?scope=repository%3Ax%2Fy%3Apull GET null null ",
      "elsewhere GET Bearer for-anybody null ",
    ]);
  });

  test("has no other way: basic is refused, a realm of its own learns no header of hosts.toml", async () => {
    seen.length = 0;
    const basic = serve(async (request) => {
      await note("basic", request);
      return refusing('Basic realm="x"');
    });
    const first = serve(() => sendingTo(`http://${basic.host}/there?sig=s3cret`));
    const failure = await failureOf(fetchLayer(first.host, { credentials }));
    expect(failure.message).toContain(
      `GET http://${first.host}/v2/a/b/blobs/${layer.digest} redirected to http://${basic.host}/there?sig=REDACTED: 401 Unauthorized`,
    );
    expect(seen).toEqual(["basic GET null null "]);
    seen.length = 0;
    const self = serve(async (request, { pathname }) => {
      await note(pathname, request);
      if (pathname === "/token") return Response.json({ token: "t" });
      return refusing(`Bearer realm="http://${self.host}/token"`);
    });
    const second = serve(() => sendingTo(`http://${self.host}/there`));
    const { hostsDirectory } = hosts(`[host."http://${second.host}".header]\nx-ours = "s3cret"`);
    await failureOf(fetchLayer("name.example", { credentials, hostsDirectory }));
    expect(seen.join()).toContain("/token GET null null");
    expect(seen.join()).not.toContain("s3cret");
  });

  test("that nobody reaches is named with its address, without its signature", async () => {
    const { host } = serve(() => sendingTo("http://127.0.0.1:1/there?sig=s3cret"));
    const { message } = await failureOf(fetchLayer(host));
    expect(message).toContain(
      `GET http://${host}/v2/a/b/blobs/${layer.digest}: redirected to http://127.0.0.1:1/there?sig=REDACTED: connection refused`,
    );
    expect(message).not.toContain("s3cret");
  });
});

describe("odd answers", () => {
  test.each([
    ["early hints", "HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 33"],
    ["HTTP/1.0 without a length", "HTTP/1.0 200 OK"],
  ])("%s are read", async (_, head) => {
    const { host } = await serveRaw((socket) => void socket.end(`${head}\r\n\r\n${blob}`));
    expect(await fetchLayer(host)).toEqual(blob);
  });

  test.each([
    [
      "two lengths",
      `HTTP/1.1 200 OK\r\ncontent-length: 33\r\ncontent-length: 5\r\n\r\n${blob}`,
      "invalid content length",
    ],
    [
      "a wrong piece",
      "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
      "malformed HTTP response",
    ],
    ["another protocol", "SSH-2.0-OpenSSH\r\n", "malformed HTTP response"],
    ["304 to a question without a condition", "HTTP/1.1 304 Not Modified\r\n\r\n", "304 Not Modified"],
    ["nothing", "HTTP/1.1 204 No Content\r\n\r\n", "ended 33 bytes early"],
    ["416", "HTTP/1.1 416 Range Not Satisfiable\r\ncontent-length: 0\r\n\r\n", "416 Range Not Satisfiable"],
  ])("%s: the error says so and names the request", async (_, answer, words) => {
    const { host } = await serveRaw((socket) => void socket.end(answer));
    const failure = await failureOf(fetchLayer(host));
    expect(failure.code).toBe("Unknown");
    expect(failure.message).toContain(words);
    expect(failure.message).toContain(`GET http://${host}/v2/a/b/blobs/${layer.digest}`);
    expect(failure.message).toContain(`(default for ${host})`);
  });

  test("the length of a coded manifest is not its size", async () => {
    const coded = Bun.gzipSync(blob);
    const headers = {
      "content-type": MANIFEST,
      "content-encoding": "gzip",
      "content-length": String(coded.length),
      "docker-content-digest": layer.digest,
    };
    const { host } = serve(
      (request) => new Response(request.method === "HEAD" ? null : coded, { headers: { ...headers } }),
    );
    const { descriptor } = await resolverOf().resolve(`${host}/a/b:t`);
    expect(descriptor).toEqual({ mediaType: MANIFEST, digest: layer.digest, size: blob.length });
  });

  test("Retry-After by a date is waited for", async () => {
    const started = Date.now();
    // Dates have whole seconds; the wait is spread by a quarter.
    const date = new Date(Math.ceil(started / 1000) * 1000 + 1000);
    let requests = 0;
    const { host } = serve(() => {
      if (requests++ > 0) return new Response(blob);
      return new Response("", { status: 429, headers: { "retry-after": date.toUTCString() } });
    });
    expect(await fetchLayer(host)).toEqual(blob);
    expect(Date.now() - started).toBeGreaterThan(740);
  });

  test("schema 1 names who has it", async () => {
    const { host } = serve(
      () =>
        new Response(blob, {
          headers: { "content-type": "text/plain", "docker-content-digest": layer.digest },
        }),
    );
    const { code, message } = await failureOf(resolverOf().resolve(`${host}/a/b:t`));
    expect(code).toBe("Unimplemented");
    expect(message).toStartWith(
      `tried HEAD http://${host}/v2/a/b/manifests/t: 200 OK (default for ${host}):`,
    );
  });
});

describe("what no header can hold", () => {
  const { host } = serve(() => refusing('Basic realm="x"'));
  test.each([
    ["credentials", { credentials: async () => ({ header: "Bearer s3cret\nx" }) }],
    ["credentials", { credentials: async () => ({ header: "Bearer s3cret 中" }) }],
    ["header", { headers: { "x-ours": "s3\ncret" } }],
  ] as const)("%s is refused without being shown", async (what, options) => {
    const failure = await failureOf(resolverOf(options).resolve(`${host}/a/b:t`));
    expect(failure.code).toBe("InvalidArgument");
    expect(failure.message).toContain(what);
    expect(failure.message).toContain("no header of HTTP");
    expect(failure.message).not.toContain("cret");
  });

  test("a token is as good as none", async () => {
    const tokens = serve(() => Response.json({ token: "s3cret 中" }));
    const registry = serve(() => refusing(`Bearer realm="http://${tokens.host}/"`));
    const failure = await failureOf(resolverOf().resolve(`${registry.host}/a/b:t`));
    expect(failure).toMatchObject({ code: "Unknown" });
    expect(failure.message).toContain("did not include a token in the response");
    expect(failure.message).not.toContain("s3cret");
  });
});

describe("several hosts", () => {
  const good = serve(
    () =>
      new Response(blob, { headers: { "content-type": MANIFEST, "docker-content-digest": layer.digest } }),
  );

  test("one that breaks off is left for the next", async () => {
    let connections = 0;
    const cutting = await serveRaw((socket) => {
      connections += 1;
      socket.end("HTTP/1.1 200 OK\r\ncontent-length: 33\r\n\r\n");
    });
    const { hostsDirectory } = hosts(`server = "http://${good.host}"\n[host."http://${cutting.host}"]`);
    expect(await fetchLayer("name.example", { hostsDirectory })).toEqual(blob);
    expect(connections).toBe(1);
  });

  test("all of them break off: the last is named, with the file", async () => {
    const cut = async () =>
      await serveRaw((socket) => void socket.end("HTTP/1.1 200 OK\r\ncontent-length: 33\r\n\r\n"));
    const [one, two] = [await cut(), await cut()];
    const { hostsDirectory, file } = hosts(`server = "http://${one.host}"\n[host."http://${two.host}"]`);
    const { message } = await failureOf(fetchLayer("name.example", { hostsDirectory }));
    expect(message).toContain(`(${file}) cut at byte 0 of 33`);
  });

  test("one whose token server fails is left for the next", async () => {
    const dead = serve(() => new Response("", { status: 503 }));
    const mirror = serve(() => refusing(`Bearer realm="http://${dead.host}/"`));
    const { hostsDirectory } = hosts(`server = "http://${good.host}"\n[host."http://${mirror.host}"]`);
    expect(await fetchLayer("name.example", { hostsDirectory })).toEqual(blob);
    expect((await resolverOf({ hostsDirectory }).resolve("name.example/a/b:t")).descriptor.digest).toBe(
      layer.digest,
    );
  });
});

describe("push", () => {
  /** A registry that takes uploads, but for what `instead` answers; the requests that it had. */
  function uploads(instead: (request: Request, url: URL) => Response | undefined) {
    const requests: string[] = [];
    const server = serve(async (request, url) => {
      await request.arrayBuffer();
      requests.push(`${request.method} ${url.pathname}`);
      const answer = instead(request, url);
      if (answer !== undefined) return answer;
      if (request.method === "HEAD") return new Response("", { status: 404 });
      const isStart = request.method === "POST";
      return new Response("", {
        status: isStart ? 202 : 201,
        headers: isStart ? { location: "/upload" } : {},
      });
    });
    return { ...server, requests };
  }
  const push = async (host: string) => {
    const annotations = { "containerd.io/distribution.source.127.0.0.1": "x/y" };
    return await (await resolverOf().pusher(`${host}/a/b:t`)).push({ ...layer, annotations }, source);
  };

  test.each([400, 403, 404, 405])("a registry that answers %d to a mount gets the bytes", async (status) => {
    const { host, requests } = uploads((_, url) =>
      url.searchParams.has("mount") ? new Response("", { status }) : undefined,
    );
    expect(await push(host)).toEqual({ kind: "pushed" });
    expect(requests.map((request) => request.split(" ", 1)[0])).toEqual(["HEAD", "POST", "POST", "PUT"]);
  });

  test("a mount that the server fails at, an upload to where nobody is: named with what decided", async () => {
    const failing = uploads((_, url) =>
      url.searchParams.has("mount") ? new Response("", { status: 501 }) : undefined,
    );
    const mount = `http://${failing.host}/v2/a/b/blobs/uploads/?mount=REDACTED&from=REDACTED`;
    expect((await failureOf(push(failing.host))).message).toStartWith(
      `tried POST ${mount}: 501 Not Implemented (default for ${failing.host}): unexpected status`,
    );
    const headers = { location: "http://127.0.0.1:1/upload?state=s3cret" };
    const away = uploads(({ method }) =>
      method === "POST" ? new Response("", { status: 202, headers }) : undefined,
    );
    const { message } = await failureOf(push(away.host));
    expect(message).toStartWith(
      `tried PUT http://127.0.0.1:1/upload?state=REDACTED: connection refused (default for ${away.host}):`,
    );
    expect(message).not.toContain("s3cret");
  });
});

describe("a proxy for TLS", () => {
  /** Opens tunnels, whatever they are to, to `target`, or answers otherwise. */
  async function proxy(target: string, answer?: string) {
    const asked: string[] = [];
    const sockets = new Set<Socket>();
    const keep = (socket: Socket): Socket => {
      sockets.add(socket);
      return socket.on("error", () => undefined);
    };
    const server: Server = createServer((socket) => {
      keep(socket).once("data", (data: Buffer) => {
        const [first = "", ...headers] = data.toString().split("\r\n");
        asked.push(first, ...headers.filter((line) => /^proxy-authorization/i.test(line)));
        if (answer !== undefined) return void socket.end(answer);
        const upstream = keep(connect(Number(target.split(":")[1]), "127.0.0.1"));
        socket.write("HTTP/1.1 200 Connection established\r\n\r\n");
        socket.pipe(upstream).pipe(socket);
      });
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const host = `127.0.0.1:${(server.address() as { port: number }).port}`;
    const close = (): void => {
      for (const socket of sockets) socket.destroy();
      server.close();
    };
    return { host, asked, [Symbol.dispose]: close };
  }

  async function withEnvironment<T>(
    variables: Readonly<Record<string, string>>,
    work: () => Promise<T>,
  ): Promise<T> {
    const before = Object.keys(variables).map((name): [string, string | undefined] => [
      name,
      process.env[name],
    ]);
    Object.assign(process.env, variables);
    try {
      return await work();
    } finally {
      for (const [name, value] of before) {
        if (value === undefined) delete process.env[name];
        else process.env[name] = value;
      }
    }
  }

  test("tunnels, with its password and the registry's own authority; NO_PROXY leaves hosts out", async () => {
    const pki = await makeCertificates(join(folder, "pki"));
    const [key, cert] = ["server.key", "server.pem"].map((name) => readFileSync(join(pki, name), "utf8"));
    const registry = Bun.serve({
      port: 0,
      hostname: "127.0.0.1",
      tls: { key: key ?? "", cert: cert ?? "" },
      fetch: () => new Response(blob),
    });
    try {
      using tunnels = await proxy(`127.0.0.1:${registry.port}`);
      using closed = await proxy(
        "",
        "HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n",
      );
      const { hostsDirectory } = hosts(`server = "https://name.invalid"\nca = "${pki}/ca.pem"`);
      const strict = hosts('server = "https://name.invalid"');
      const ask = async (HTTPS_PROXY: string, NO_PROXY = "", of = hostsDirectory) =>
        await withEnvironment({ HTTPS_PROXY, NO_PROXY }, async () => {
          return await failureOf(fetchLayer("name.example", { hostsDirectory: of }));
        });
      const secret = `http://me:s3cret@${tunnels.host}`;
      expect(await ask(secret, "example,nvalid,other.invalid")).toEqual({ code: "OK", message: "" });
      const basic = Buffer.from("me:s3cret").toString("base64");
      expect(tunnels.asked).toEqual([
        "CONNECT name.invalid:443 HTTP/1.1",
        `Proxy-Authorization: Basic ${basic}`,
      ]);
      const untrusted = await ask(secret, "", strict.hostsDirectory);
      expect(untrusted.message).toContain("failed to verify certificate");
      const wrong = hosts(`server = "https://other.invalid"\nca = "${pki}/ca.pem"`);
      const stranger = await ask(secret, "", wrong.hostsDirectory);
      expect(stranger.message).toContain("it is not the certificate of this host");
      expect(stranger.message).not.toContain("verbose");
      const refused = await ask(`http://me:s3cret@${closed.host}`);
      expect(refused.message).toContain("Proxy refused to open a tunnel: 407 Proxy Authentication Required");
      // The same by an address that is not taken for loopback.
      const server = `https://0.0.0.0:${registry.port}`;
      const { hostsDirectory: addressed } = hosts(`server = "${server}"\nskip_verify = true`);
      for (const [left, isTunnelled] of [
        ["0.0.0.0/8", false],
        [`other.example,0.0.0.0:${registry.port}`, false],
        ["*", false],
        ["10.0.0.0/8,0.0.0.0:1", true],
      ] as const) {
        tunnels.asked.length = 0;
        expect((await ask(secret, left, addressed)).code).toBe("OK");
        expect(tunnels.asked.length > 0).toBe(isTunnelled);
      }
      const socks = await ask(`socks5://me:s3cret@${tunnels.host}`);
      expect(socks.message).toContain("a proxy that is none of http(s)");
      expect([untrusted, refused, socks].map(({ message }) => message).join()).not.toContain("s3cret");
    } finally {
      await registry.stop(true);
    }
  });
});
