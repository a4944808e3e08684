/** Whose credentials an image is pulled with: `pkg/credentialprovider/keyring.go`. */
import { create } from "@bufbuild/protobuf";
import { type AuthConfig, AuthConfigSchema } from "#gen/runtime/v1/api_pb.ts";

export interface PullCredential {
  /** `host[:port][/path]`, where `*` and `?` stand for what is between two dots of the host. */
  readonly registry: string;
  /** Without a server's address, as kubelets send it: who it is meant for has been decided here. */
  readonly auth: AuthConfig;
}

interface DockerAuth {
  readonly username?: string;
  readonly password?: string;
  readonly auth?: string;
  readonly identitytoken?: string;
  readonly registrytoken?: string;
}

const DEFAULT_REGISTRY = "index.docker.io";

/** Those of secrets of type `kubernetes.io/dockerconfigjson` and `kubernetes.io/dockercfg`, given by their data. @throws Error if they hold no JSON */
export function credentialsOf(secrets: readonly ReadonlyMap<string, Uint8Array>[]): PullCredential[] {
  return secrets.flatMap((data) => {
    const json = data.get(".dockerconfigjson");
    const old = data.get(".dockercfg");
    const text = new TextDecoder().decode(json ?? old ?? Buffer.from("{}"));
    const parsed = parsedSecret(text) as { auths?: Record<string, DockerAuth> } & Record<string, DockerAuth>;
    const entries = json === undefined ? parsed : (parsed.auths ?? {});
    return Object.entries(entries).map(([location, auth]) => ({
      registry: registryOf(location),
      auth: authOf(auth as DockerAuth),
    }));
  });
}

/** What is in it is not for the message. */
function parsedSecret(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw new Error("an image pull secret holds no JSON");
  }
}

/** `/v1/` and `/v2/` behind a host stand for the host alone. */
function registryOf(location: string): string {
  const [, host = "", path = ""] = /^(?:https?:\/\/)?([^/]*)(.*)$/s.exec(location) ?? [];
  const effective = /^\/v[12]\//.test(path) ? path.slice(3) : path;
  return effective === "/" ? host : host + effective;
}

function authOf({ username = "", password = "", auth, ...tokens }: DockerAuth): AuthConfig {
  const decoded = auth === undefined ? "" : Buffer.from(auth, "base64").toString();
  const colon = decoded.indexOf(":");
  const named =
    colon > 0
      ? { username: decoded.slice(0, colon), password: decoded.slice(colon + 1) }
      : { username, password };
  return create(AuthConfigSchema, {
    ...named,
    identityToken: tokens.identitytoken ?? "",
    registryToken: tokens.registrytoken ?? "",
  });
}

/** Those to be tried, the most specific first. */
export function credentialsFor(image: string, all: readonly PullCredential[]): AuthConfig[] {
  const name = image.split("@")[0] ?? image;
  const first = name.split("/")[0] ?? "";
  const hasHost = name.includes("/") && /[.:]|^localhost$/.test(first);
  const full = hasHost ? name : `docker.io/${name.includes("/") ? name : `library/${name}`}`;
  const sorted = all.toSorted((a, b) => (a.registry < b.registry ? 1 : a.registry > b.registry ? -1 : 0));
  const found = sorted.filter(({ registry }) => isFor(registry, full));
  const isDefault = /^(?:index\.)?docker\.io\//.test(full);
  const chosen =
    found.length > 0 || !isDefault ? found : all.filter(({ registry }) => registry === DEFAULT_REGISTRY);
  return chosen.map(({ auth }) => auth);
}

/** The host's parts match one by one, and the path begins so. */
function isFor(registry: string, image: string): boolean {
  const [pattern, target] = [partsOf(registry), partsOf(image)];
  return (
    pattern.port === target.port &&
    pattern.labels.length === target.labels.length &&
    target.path.startsWith(pattern.path) &&
    pattern.labels.every((label, index) => matches(label, target.labels[index] ?? ""))
  );
}

function partsOf(text: string): { labels: string[]; port: string; path: string } {
  const slash = text.indexOf("/");
  const authority = slash < 0 ? text : text.slice(0, slash);
  const [, host = "", port = ""] = /^(.*?)(?::(\d+))?$/s.exec(authority) ?? [];
  return { labels: host.split("."), port, path: slash < 0 ? "" : text.slice(slash) };
}

function matches(pattern: string, label: string): boolean {
  const source = pattern
    .replaceAll(/[.+^${}()|[\]\\]/g, "\\$&")
    .replaceAll("*", ".*")
    .replaceAll("?", ".");
  return new RegExp(`^${source}$`, "s").test(label);
}
