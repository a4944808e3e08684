import { posix } from "node:path";
import { BunkerdError, quote } from "../model/errors.ts";
import type { HostEntry } from "./hosts.ts";
import { isLoopback } from "./loopback.ts";

/** Hosts that are asked before a name's own: by the name's host, or `*` for those that are not named. As CRI's configuration of old has it. */
export type Mirrors = Readonly<Record<string, { readonly endpoint: readonly string[] }>>;

/**
 * What is asked for a name, in order; a host of its own is added unless an endpoint is that (containerd `internal/cri/server/images/image_pull.go`,
 * registryEndpoints). Undefined if no mirror is meant for it.
 * @throws InvalidArgument on an endpoint that is no URL
 */
export function mirrorEntries(mirrors: Mirrors, name: string): readonly (HostEntry | "own")[] | undefined {
  const key = Object.hasOwn(mirrors, name) ? name : "*";
  const endpoints = Object.hasOwn(mirrors, key) ? (mirrors[key]?.endpoint ?? []) : [];
  if (endpoints.length === 0) return undefined;
  const entries = endpoints.map((endpoint) => entryOf(endpoint, key));
  return entries.some(({ url }) => url.host === name) ? entries : [...entries, "own"];
}

function entryOf(endpoint: string, key: string): HostEntry & Required<Pick<HostEntry, "url">> {
  const [host = ""] = endpoint.split("/", 1);
  const whole = endpoint.includes("://") ? endpoint : `${isLoopback(host) ? "http" : "https"}://${endpoint}`;
  // What was written decides about the path: URL gives one to `https://host`, too.
  const [, scheme, written] = /^(https?):\/\/[^/?#]+(\/[^?#]*)?$/.exec(whole) ?? [];
  const url = URL.parse(whole);
  if (url === null || scheme === undefined || url.username !== "" || url.password !== "") {
    throw new BunkerdError(
      "InvalidArgument",
      `registry.mirrors.${quote(key)}.endpoint: ${quote(endpoint)}: expected http(s)://host[:port][/path]`,
    );
  }
  return {
    url: {
      scheme: scheme === "http" ? "http" : "https",
      host: url.host,
      path: written === undefined ? "/v2" : posix.normalize(url.pathname).replace(/\/$/, ""),
    },
    capabilities: new Set(["pull", "resolve"]),
    headers: [],
    tls: {},
  };
}
