/** Registries that lie, stall, flood and send elsewhere: made here, on loopback. */
import { afterAll, describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import type { Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { silentLogger } from "../../src/lib/log.ts";
import type { OciDescriptor } from "../../src/model/oci.ts";
import { createResolver, type ResolverOptions } from "../../src/registry/resolver.ts";
import { failureOf, oddServers, read } from "../support/odd-servers.ts";
import { digestOf } from "../support/tar.ts";

const { serve, serveRaw, stop } = oddServers();
afterAll(stop);

const LAYER = "application/vnd.oci.image.layer.v1.tar";
const MANIFEST = "application/vnd.oci.image.manifest.v1+json";
const blob = Buffer.from("the bytes of a blob, more or less");
const layer: OciDescriptor = { mediaType: LAYER, digest: digestOf(blob), size: blob.length };

const resolverOf = (options: Partial<ResolverOptions> = {}) =>
  createResolver({ logger: silentLogger, defaultScheme: "http", ...options });

/** Writes without end, as fast as the reader takes it; answers how much. */
function flood(socket: Socket, piece: string): { readonly sent: () => number } {
  let sent = 0;
  const write = (): void => {
    while (!socket.destroyed) {
      sent += piece.length;
      if (!socket.write(piece)) return void socket.once("drain", write);
    }
  };
  write();
  return { sent: () => sent };
}

const fetchLayer = async (
  host: string,
  descriptor = layer,
  into: Uint8Array[] = [],
  options: Partial<ResolverOptions> = {},
) => await read((await resolverOf(options).fetcher(`${host}/a/b:t`)).fetch(descriptor), into);

describe("resolve", () => {
  test("headers without end are given up", async () => {
    const { host } = await serveRaw((socket) => {
      socket.write("HTTP/1.1 200 OK\r\n");
      flood(socket, `x: ${"a".repeat(8000)}\r\n`);
    });
    const failure = await failureOf(resolverOf().resolve(`${host}/a/b:t`));
    expect(failure.code).toBe("Unknown");
    expect(failure.message).toContain("response headers exceed the limit");
  });

  test("a manifest without end is read to the limit, then rejected", async () => {
    const floods: { sent: () => number }[] = [];
    const { host } = await serveRaw((socket) => {
      socket.write(`HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: ${MANIFEST}\r\n\r\n`);
      floods.push(flood(socket, " ".repeat(65_536)));
    });
    const failure = await failureOf(resolverOf().resolve(`${host}/a/b:t`));
    expect(failure.code).toBe("NotFound");
    expect(failure.message).toContain("byte manifest for");
    expect(Math.max(...floods.map(({ sent }) => sent()))).toBeLessThan(64 << 20);
  });

  test("a manifest that says to be too large is not read", async () => {
    const headers = {
      "content-length": "5000000",
      "docker-content-digest": layer.digest,
      "content-type": MANIFEST,
    };
    const { host } = await serveRaw((socket) => {
      socket.write(
        `HTTP/1.1 200 OK\r\n${Object.entries(headers)
          .map((pair) => pair.join(": "))
          .join("\r\n")}\r\n\r\n`,
      );
    });
    const failure = await failureOf(resolverOf().resolve(`${host}/a/b:t`));
    expect(failure).toMatchObject({ code: "NotFound" });
    expect(failure.message).toContain("rejecting 5000000 byte manifest");
  });

  test("without a digest in the headers the manifest is read for it", async () => {
    const methods: string[] = [];
    const { host } = serve((request) => {
      methods.push(request.method);
      return new Response(request.method === "HEAD" ? null : blob, {
        headers: { "content-type": `${MANIFEST}; charset=utf-8` },
      });
    });
    const { descriptor } = await resolverOf().resolve(`${host}/a/b:t`);
    expect(descriptor).toEqual({ mediaType: MANIFEST, digest: layer.digest, size: blob.length });
    expect(methods).toEqual(["HEAD", "GET"]);
  });

  test("a registry that refuses HEAD is asked by GET", async () => {
    const { host } = serve((request) =>
      request.method === "HEAD"
        ? new Response("", { status: 405 })
        : new Response(blob, {
            headers: { "content-type": MANIFEST, "docker-content-digest": layer.digest },
          }),
    );
    expect((await resolverOf().resolve(`${host}/a/b:t`)).descriptor.digest).toBe(layer.digest);
  });

  test.each([
    ["../../etc/passwd", "not a valid digest"],
    ["sha256:short", "not a valid digest"],
  ])("a digest %s is no digest", async (digest, words) => {
    const { host } = serve(() => new Response(blob, { headers: { "docker-content-digest": digest } }));
    expect((await failureOf(resolverOf().resolve(`${host}/a/b:t`))).message).toContain(words);
  });

  test.each(["application/vnd.docker.distribution.manifest.v1+prettyjws", "text/plain"])(
    "schema 1 (%s) is refused",
    async (type) => {
      const { host } = serve(
        () =>
          new Response(blob, { headers: { "content-type": type, "docker-content-digest": layer.digest } }),
      );
      const failure = await failureOf(resolverOf().resolve(`${host}/a/b:t`));
      expect(failure.code).toBe("Unimplemented");
      expect(failure.message).toContain("is no longer supported");
    },
  );

  test("a refusal without a body is asked for its reason, which stays on one line and bounded", async () => {
    const message = `no\nway ${"x".repeat(100_000)}`;
    const { host } = serve((request) =>
      request.method === "HEAD"
        ? new Response("", { status: 403 })
        : Response.json({ errors: [{ code: "DENIED", message }] }, { status: 403 }),
    );
    const failure = await failureOf(resolverOf().resolve(`${host}/a/b:t`));
    expect(failure.message).toContain("unexpected status from HEAD request");
    const short = serve((request) =>
      request.method === "HEAD"
        ? new Response("", { status: 403 })
        : Response.json({ errors: [{ code: "DENIED", message: "no\nway" }] }, { status: 403 }),
    );
    const told = await failureOf(resolverOf().resolve(`${short.host}/a/b:t`));
    expect(told.message).toContain('403 Forbidden: "denied: no\\nway"');
    expect(failure.message.length).toBeLessThan(2000);
  });

  test("a refusal whose reason never comes is told without it", async () => {
    const { host } = await serveRaw((socket) =>
      socket.write("HTTP/1.1 403 Forbidden\r\ncontent-length: 1000\r\n\r\n{"),
    );
    const failure = await failureOf(resolverOf().resolve(`${host}/a/b:t`));
    expect(failure.message).toEndWith("403 Forbidden");
  }, 20_000);

  test("429 and 503 are asked again, but not for ever", async () => {
    let requests = 0;
    const patient = serve(() => {
      requests += 1;
      if (requests < 3)
        return new Response("", { status: requests === 1 ? 429 : 503, headers: { "retry-after": "0" } });
      return new Response(blob, {
        headers: { "content-type": MANIFEST, "docker-content-digest": layer.digest },
      });
    });
    expect((await resolverOf().resolve(`${patient.host}/a/b:t`)).descriptor.digest).toBe(layer.digest);
    let refused = 0;
    const never = serve(() => {
      refused += 1;
      return new Response("", { status: 429 });
    });
    expect((await failureOf(resolverOf().resolve(`${never.host}/a/b:t`))).message).toContain(
      "429 Too Many Requests",
    );
    expect(refused).toBe(5);
  });

  test("who gives up is answered at once, and the connection ends", async () => {
    const asked = Promise.withResolvers<void>();
    const { host, open } = await serveRaw(() => asked.resolve());
    const controller = new AbortController();
    const work = failureOf(resolverOf().resolve(`${host}/a/b:t`, controller.signal));
    await asked.promise;
    const closed = new Promise((resolve) => [...open][0]?.once("close", resolve));
    controller.abort();
    expect(await work).toMatchObject({ code: "Canceled" });
    await closed;
  });
});

describe("fetch", () => {
  test.each([
    ["more", Buffer.concat([blob, blob])],
    ["less", blob.subarray(1)],
  ])("%s than the descriptor's size is refused by the length", async (_, bytes) => {
    const { host } = serve(() => new Response(bytes));
    const failure = await failureOf(fetchLayer(host));
    expect(failure.code).toBe("DataLoss");
    expect(failure.message).toContain(
      `the registry has ${bytes.length} bytes of it instead of ${blob.length}`,
    );
  });

  test("a body without end or length ends at the size", async () => {
    const floods: { sent: () => number }[] = [];
    const { host } = await serveRaw((socket) => {
      socket.write("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n");
      floods.push(flood(socket, "x".repeat(65_536)));
    });
    const failure = await failureOf(fetchLayer(host, { ...layer, size: 100_000 }));
    expect(failure).toMatchObject({ code: "DataLoss" });
    expect(floods[0]?.sent()).toBeLessThan(64 << 20);
  });

  test("the last piece of a wrong blob is not handed over", async () => {
    const wrong = Buffer.from(blob);
    wrong[0] = 0;
    const { host } = serve(() => new Response(wrong));
    const pieces: Uint8Array[] = [];
    const failure = await failureOf(fetchLayer(host, layer, pieces));
    expect(failure).toEqual({
      code: "DataLoss",
      message: `unexpected digest ${digestOf(wrong)}, expected ${layer.digest}: data loss`,
    });
    expect(pieces).toEqual([]);
  });

  test("a slow reader slows the registry down", async () => {
    const floods: { sent: () => number }[] = [];
    const size = 1 << 30;
    const { host } = await serveRaw((socket) => {
      socket.write(`HTTP/1.1 200 OK\r\ncontent-length: ${size}\r\n\r\n`);
      floods.push(flood(socket, "x".repeat(65_536)));
    });
    const pieces = (await resolverOf().fetcher(`${host}/a/b:t`)).fetch({ ...layer, size });
    let before = -1;
    for await (const _ of pieces) {
      // Until nothing more is taken from it.
      while (floods[0]?.sent() !== before) {
        before = floods[0]?.sent() ?? 0;
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
      break;
    }
    expect(before).toBeLessThan(64 << 20);
  });

  test("ranges that lie are refused; a server that knows none is read whole", async () => {
    const lying = serve(
      () => new Response(blob.subarray(3), { status: 206, headers: { "content-range": "bytes 3-9/33" } }),
    );
    const fetcher = await resolverOf().fetcher(`${lying.host}/a/b:t`);
    expect((await failureOf(read(fetcher.fetch(layer, { offsetBytes: 5 })))).message).toContain(
      "unhandled content range",
    );
    let requests = 0;
    const plain = serve(() => {
      requests += 1;
      return new Response(blob);
    });
    const other = await resolverOf().fetcher(`${plain.host}/a/b:t`);
    expect(await read(other.fetch(layer, { offsetBytes: 5, lengthBytes: 7 }))).toEqual(blob.subarray(5, 12));
    const long = Buffer.alloc(4000, "abc");
    let wholes = 0;
    const whole = serve(() => {
      wholes += 1;
      return new Response(long);
    });
    const descriptor = { ...layer, digest: digestOf(long), size: long.length };
    const options = { maxConcurrentDownloads: 4, concurrentLayerFetchBuffer: 1000 };
    expect((await fetchLayer(whole.host, descriptor, [], options)).equals(long)).toBe(true);
    // One to learn it, one to read.
    expect([requests, wholes]).toEqual([1, 2]);
  });

  test("connections that end behind their headers are opened anew three times", async () => {
    for (const [failures, code] of [
      [3, "OK"],
      [4, "Unknown"],
    ] as const) {
      let connections = 0;
      const { host } = await serveRaw((socket) => {
        const isWhole = connections++ === failures;
        socket.end(
          `HTTP/1.1 200 OK\r\ncontent-length: ${blob.length}\r\n\r\n${isWhole ? blob.toString() : ""}`,
        );
      });
      expect((await failureOf(fetchLayer(host))).code).toBe(code);
      expect(connections).toBe(4);
    }
  });

  test("a body that was coded on its way is decoded, and bounded by the size", async () => {
    const coded = serve(() => new Response(Bun.gzipSync(blob), { headers: { "content-encoding": "gzip" } }));
    expect(await fetchLayer(coded.host)).toEqual(blob);
    const bomb = serve(
      () => new Response(Bun.gzipSync(Buffer.alloc(64 << 20)), { headers: { "content-encoding": "gzip" } }),
    );
    expect(await failureOf(fetchLayer(bomb.host))).toMatchObject({ code: "DataLoss" });
  });

  test("all permits come back, whatever happens", async () => {
    let [held, most] = [0, 0];
    const limit = async () => {
      held += 1;
      most = Math.max(most, held);
      return () => {
        held -= 1;
      };
    };
    const wrong = serve(() => new Response("", { status: 500 }));
    await failureOf(fetchLayer(wrong.host, layer, [], { limit }));
    const right = serve(() => new Response(blob));
    await fetchLayer(right.host, layer, [], { limit });
    for await (const _ of (await resolverOf({ limit }).fetcher(`${right.host}/a/b:t`)).fetch(layer, {
      verify: false,
    }))
      break;
    expect([held, most]).toEqual([0, 1]);
  });
});

describe("push", () => {
  test("an upload that the registry fails at begins anew, three times in all", async () => {
    for (const [failures, expected] of [
      [2, { code: "OK", puts: 3 }],
      [9, { code: "Unknown", puts: 3 }],
    ] as const) {
      let [uploads, puts] = [0, 0];
      const { host } = serve((request) => {
        if (request.method === "HEAD") return new Response("", { status: 404 });
        if (request.method === "POST") {
          return new Response("", {
            status: 202,
            headers: { location: `/v2/a/b/blobs/uploads/${++uploads}` },
          });
        }
        expect(request.url).toContain(`/uploads/${uploads}?digest=`);
        return new Response("", { status: ++puts > failures ? 201 : 502 });
      });
      const pusher = await resolverOf().pusher(`${host}/a/b:t`);
      const { code } = await failureOf(
        pusher.push(layer, async function* () {
          yield blob;
        }),
      );
      expect({ code, puts }).toEqual(expected);
    }
  });

  test("a registry that says to have stored something else is not believed", async () => {
    const { host } = serve((request) => {
      if (request.method === "HEAD") return new Response("", { status: 404 });
      if (request.method === "POST")
        return new Response("", { status: 202, headers: { location: "/upload" } });
      return new Response("", {
        status: 201,
        headers: { "docker-content-digest": digestOf(Buffer.from("other")) },
      });
    });
    const pusher = await resolverOf().pusher(`${host}/a/b:t`);
    const failure = await failureOf(
      pusher.push(layer, async function* () {
        yield blob;
      }),
    );
    expect(failure.message).toContain(
      `got digest "${digestOf(Buffer.from("other"))}", expected ${layer.digest}`,
    );
  });
});

describe("elsewhere", () => {
  test("another host is sent no header of ours", async () => {
    const seen: Headers[] = [];
    const store = serve((request) => {
      seen.push(request.headers);
      return new Response(blob);
    });
    const { host } = serve((request) => {
      if (request.headers.get("authorization") === null) {
        return new Response("", { status: 401, headers: { "www-authenticate": 'Basic realm="x"' } });
      }
      return new Response("", {
        status: 307,
        headers: { location: `http://${store.host}/bucket?signature=s3cret` },
      });
    });
    const credentials = async () => ({ username: "me", secret: "s3cret" });
    const bytes = await fetchLayer(host, layer, [], { credentials, headers: { "x-ours": "yes" } });
    expect(bytes).toEqual(blob);
    expect(seen.map((headers) => [headers.get("authorization"), headers.get("x-ours")])).toEqual([
      [null, null],
    ]);
  });

  test("what a signed URL is signed with is not repeated", async () => {
    const store = serve(() => new Response("", { status: 403 }));
    const { host } = serve(
      () =>
        new Response("", { status: 302, headers: { location: `http://${store.host}/b?sig=s3cret#s3cret` } }),
    );
    const failure = await failureOf(fetchLayer(host));
    expect(failure.message).toContain(`http://${store.host}/b?sig=REDACTED: 403 Forbidden`);
    expect(failure.message).not.toContain("s3cret");
  });

  test.each(["file:///etc/passwd", "ftp://127.0.0.1/x", "data:text/plain,x", "http://", "javascript:0"])(
    "%s is not followed",
    async (location) => {
      const { host } = serve(() => new Response("", { status: 307, headers: { location } }));
      const failure = await failureOf(fetchLayer(host));
      expect(failure).toMatchObject({ code: "Unknown" });
      expect(failure.message).toContain("redirected to what is no http(s) URL");
    },
  );

  test("circles end", async () => {
    let requests = 0;
    const { host } = serve((_, url) => {
      requests += 1;
      return new Response("", { status: 302, headers: { location: url.pathname } });
    });
    expect((await failureOf(fetchLayer(host))).message).toContain("stopped after 10 redirects");
    expect(requests).toBe(11);
  });

  test("an upload that moves to another host takes no password along", async () => {
    const seen: (string | null)[] = [];
    const store = serve((request) => {
      seen.push(request.headers.get("authorization"));
      return new Response("", { status: 201, headers: { "docker-content-digest": layer.digest } });
    });
    const { host } = serve((request) => {
      if (request.headers.get("authorization") === null) {
        return new Response("", { status: 401, headers: { "www-authenticate": 'Basic realm="x"' } });
      }
      if (request.method === "HEAD") return new Response("", { status: 404 });
      return new Response("", { status: 202, headers: { location: `http://${store.host}/upload` } });
    });
    const pusher = await resolverOf({
      credentials: async () => ({ username: "me", secret: "s3cret" }),
    }).pusher(`${host}/a/b:t`);
    const outcome = await pusher.push(layer, async function* () {
      yield blob;
    });
    expect([outcome, seen]).toEqual([{ kind: "pushed" }, [null]]);
  });

  test("foreign URLs of a descriptor are asked first, as a stranger", async () => {
    const seen: (string | null)[] = [];
    const store = serve((request) => {
      seen.push(request.headers.get("x-ours"));
      return new Response(blob);
    });
    const { host } = serve(() => new Response("", { status: 500 }));
    const urls = ["file:///etc/passwd", `http://${store.host}/blob`];
    expect(await fetchLayer(host, { ...layer, urls }, [], { headers: { "x-ours": "yes" } })).toEqual(blob);
    expect(seen).toEqual([null]);
  });
});

/** Listens and accepts nobody; its queue is full, so that the kernel leaves further connections without an answer. */
const DEAF = `
import socket, sys
server = socket.socket()
server.bind(("127.0.0.1", 0))
server.listen(0)
held = []
while True:
    client = socket.socket()
    client.settimeout(0.3)
    held.append(client)
    try:
        client.connect(server.getsockname())
    except TimeoutError:
        break
print(server.getsockname()[1], flush=True)
sys.stdin.read()
`;

test("a host that does not answer the dial costs its dial_timeout; the next is asked", async () => {
  const python = Bun.spawn(["python3", "-c", DEAF], { stdin: "pipe", stdout: "pipe" });
  const certs = mkdtempSync(join(tmpdir(), "bunkerd-dial-"));
  try {
    const { value } = await python.stdout.getReader().read();
    const deaf = `127.0.0.1:${new TextDecoder().decode(value).trim()}`;
    const { host } = serve(
      () =>
        new Response(blob, { headers: { "content-type": MANIFEST, "docker-content-digest": layer.digest } }),
    );
    mkdirSync(join(certs, "name.example"));
    const file = join(certs, "name.example/hosts.toml");
    writeFileSync(file, `[host."http://${deaf}"]\ndial_timeout = "300ms"\n[host."http://${host}"]\n`);
    const started = performance.now();
    const { descriptor } = await resolverOf({ hostsDirectory: certs }).resolve("name.example/a:t");
    expect(descriptor.digest).toBe(layer.digest);
    expect(performance.now() - started).toBeLessThan(10_000);
    writeFileSync(file, `server = "http://${deaf}"\ndial_timeout = "300ms"\n`);
    const failure = await failureOf(resolverOf({ hostsDirectory: certs }).resolve("name.example/a:t"));
    expect(failure.message).toContain(`dial: i/o timeout (${file})`);
  } finally {
    rmSync(certs, { recursive: true });
    await python.stdin.end();
    await python.exited;
  }
}, 30_000);

test("a proxy of the environment is used, for loopback hosts it is not", async () => {
  const seen: string[] = [];
  const proxy = await serveRaw(
    (socket) =>
      void socket.end(
        `HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 5\r\ncontent-type: ${MANIFEST}\r\ndocker-content-digest: ${layer.digest}\r\n\r\n`,
      ),
    (data) => void seen.push(data.split("\r\n", 1)[0] ?? ""),
  );
  const direct = serve(
    () =>
      new Response(blob, { headers: { "content-type": MANIFEST, "docker-content-digest": layer.digest } }),
  );
  const before = { ...process.env };
  process.env["HTTP_PROXY"] = `http://${proxy.host}`;
  try {
    expect((await resolverOf().resolve("registry.invalid/a/b:t")).descriptor.size).toBe(5);
    expect((await resolverOf().resolve(`${direct.host}/a/b:t`)).descriptor.size).toBe(blob.length);
    expect(seen).toEqual(["HEAD http://registry.invalid/v2/a/b/manifests/t HTTP/1.1"]);
    expect([process.env["NO_PROXY"], process.env["no_proxy"]]).toEqual([
      before["NO_PROXY"],
      before["no_proxy"],
    ]);
  } finally {
    if (before["HTTP_PROXY"] === undefined) delete process.env["HTTP_PROXY"];
    else process.env["HTTP_PROXY"] = before["HTTP_PROXY"];
  }
});

describe("tokens", () => {
  const challenge = (realm: string) => ({
    "www-authenticate": `Bearer realm="${realm}",service="s",scope="repository:a/b:pull"`,
  });

  test.each([
    ["not JSON, s3cret", () => new Response("s3cret"), "unable to decode token response"],
    ["no token", () => Response.json({ other: "s3cret" }), "did not include a token"],
    ["a token with a line break", () => Response.json({ token: "a\r\ns3cret" }), "did not include a token"],
    ["a megabyte", () => new Response("s3cret".repeat(1 << 18)), "is too large"],
    ["an error", () => new Response("s3cret", { status: 500 }), "unexpected status from token request to"],
  ])("%s of a token server", async (_, answer, words) => {
    const tokens = serve(answer);
    const { host } = serve(
      () => new Response("", { status: 401, headers: challenge(`http://${tokens.host}/?account=s3cret`) }),
    );
    const failure = await failureOf(resolverOf().resolve(`${host}/a/b:t`));
    expect(failure.message).toContain("failed to fetch anonymous token");
    expect(failure.message).toContain(words);
    expect(failure.message).not.toContain("s3cret");
  });

  test.each(["file:///etc/passwd", "nonsense", ""])("realm %j is none", async (realm) => {
    const { host } = serve(() => new Response("", { status: 401, headers: challenge(realm) }));
    expect((await failureOf(resolverOf().resolve(`${host}/a/b:t`))).message).toContain(
      "invalid token auth challenge realm",
    );
  });

  test("a token that ran out is renewed; one that never helps is not fetched for ever", async () => {
    let [granted, valid] = [0, "token-1"];
    const tokens = serve(() => Response.json({ token: `token-${++granted}` }));
    const { host } = serve((request) => {
      if (request.headers.get("authorization") !== `Bearer ${valid}`) {
        return new Response("", { status: 401, headers: challenge(`http://${tokens.host}/`) });
      }
      return new Response(blob, {
        headers: { "content-type": MANIFEST, "docker-content-digest": layer.digest },
      });
    });
    const resolver = resolverOf();
    await resolver.resolve(`${host}/a/b:t`);
    await resolver.resolve(`${host}/a/b:t`);
    expect(granted).toBe(1);
    valid = "token-2";
    await resolver.resolve(`${host}/a/b:t`);
    expect(granted).toBe(2);
    valid = "none";
    const failure = await failureOf(resolver.resolve(`${host}/a/b:t`));
    expect(failure.message).toContain("401 Unauthorized");
    expect(granted).toBe(3);
  });
});
