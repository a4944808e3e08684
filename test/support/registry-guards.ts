/** What keeps strangers from a registry: certificates, and a server of tokens. */
import { createSign } from "node:crypto";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { output } from "./processes.ts";

/** Makes `ca.pem` and, by it, certificates and keys of `server` (127.0.0.1, name.invalid) and `client` in the folder; the folder. */
export async function makeCertificates(at: string): Promise<string> {
  mkdirSync(at, { recursive: true });
  const openssl = async (...args: string[]) => await output(["openssl", ...args], { cwd: at });
  await openssl(
    "req",
    "-x509",
    "-newkey",
    "ec",
    "-pkeyopt",
    "ec_paramgen_curve:P-256",
    "-nodes",
    "-keyout",
    "ca.key",
    "-out",
    "ca.pem",
    "-days",
    "2",
    "-subj",
    "/CN=test authority",
  );
  for (const [name, extension] of [
    ["server", "subjectAltName=IP:127.0.0.1,DNS:name.invalid"],
    ["client", "extendedKeyUsage=clientAuth"],
  ]) {
    writeFileSync(join(at, `${name}.ext`), `${extension}\n`);
    await openssl(
      "req",
      "-newkey",
      "ec",
      "-pkeyopt",
      "ec_paramgen_curve:P-256",
      "-nodes",
      "-keyout",
      `${name}.key`,
      "-out",
      `${name}.csr`,
      "-subj",
      `/CN=${name}`,
    );
    await openssl(
      "x509",
      "-req",
      "-in",
      `${name}.csr`,
      "-CA",
      "ca.pem",
      "-CAkey",
      "ca.key",
      "-CAcreateserial",
      "-days",
      "2",
      "-out",
      `${name}.pem`,
      "-extfile",
      `${name}.ext`,
    );
  }
  return at;
}

/** Makes what tokens are signed with, `token.key` and `token.pem`; the folder. */
export async function makeTokenKeys(at: string): Promise<string> {
  mkdirSync(at);
  const files = ["-keyout", "token.key", "-out", "token.pem"];
  await output(
    [
      "openssl",
      "req",
      "-x509",
      "-newkey",
      "rsa:2048",
      "-nodes",
      ...files,
      "-days",
      "2",
      "-subj",
      "/CN=token",
    ],
    { cwd: at },
  );
  return at;
}

/** A token server: counts, and knows one user, `me` with `s3cret`, of whom strangers only read. */
export function startTokenServer(keys: string, takesPost: boolean) {
  const requests: { method: string; scopes: string[]; user: string | undefined }[] = [];
  const certificate = readFileSync(join(keys, "token.pem"), "utf8").replace(/-----[^-]+-----|\n/g, "");
  const grant = (scopes: string[], isUser: boolean): Response => {
    const access = scopes.map((scope) => {
      const [type, name, actions = ""] = scope.split(":");
      return { type, name, actions: actions.split(",").filter((action) => isUser || action === "pull") };
    });
    const now = Math.floor(Date.now() / 1000);
    const part = (value: unknown) => Buffer.from(JSON.stringify(value)).toString("base64url");
    const claims = {
      iss: "test",
      aud: "registry",
      sub: "",
      iat: now,
      nbf: now - 10,
      exp: now + 300,
      jti: "1",
      access,
    };
    const text = `${part({ typ: "JWT", alg: "RS256", x5c: [certificate] })}.${part(claims)}`;
    const signature = createSign("RSA-SHA256")
      .update(text)
      .sign(readFileSync(join(keys, "token.key")), "base64url");
    return Response.json({
      token: `${text}.${signature}`,
      access_token: `${text}.${signature}`,
      expires_in: 300,
    });
  };
  const server = Bun.serve({
    port: 0,
    hostname: "127.0.0.1",
    async fetch(request) {
      const url = new URL(request.url);
      if (request.method === "POST") {
        if (!takesPost) return new Response("", { status: 404 });
        const form = new URLSearchParams(await request.text());
        const secret =
          form.get("grant_type") === "refresh_token" ? form.get("refresh_token") : form.get("password");
        const scopes = (form.get("scope") ?? "").split(" ");
        requests.push({
          method: "POST",
          scopes,
          user: form.get("username") ?? form.get("grant_type") ?? undefined,
        });
        return secret === "s3cret" ? grant(scopes, true) : new Response("", { status: 403 });
      }
      const authorization = request.headers.get("authorization");
      const scopes = url.searchParams.getAll("scope");
      requests.push({ method: "GET", scopes, user: authorization === null ? undefined : "basic" });
      return grant(scopes, authorization === `Basic ${Buffer.from("me:s3cret").toString("base64")}`);
    },
  });
  return {
    requests,
    realm: `http://127.0.0.1:${server.port}/token`,
    stop: (force?: boolean) => server.stop(force),
  };
}
