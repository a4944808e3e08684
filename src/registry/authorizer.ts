import { BunkerdError, quote } from "../model/errors.ts";
import type { CredentialSource, Credentials } from "../model/remotes.ts";
import { type Challenge, parseChallenges } from "./challenges.ts";
import { messageOfFailure } from "./failures.ts";
import type { RegistryHost } from "./hosts.ts";
import { basicOf, fetchToken, realmOf, type Token } from "./tokens.ts";

/*
 * Who we are to each host of a session: learnt from its first refusal, kept until it is refused again. By containerd
 * `core/remotes/docker/authorizer.go`; a challenge's scopes are kept for the requests that they were asked for, not for all.
 */

/** The registry does not let us; containerd's words. */
export class AuthorizationFailure extends BunkerdError {
  constructor(message: string) {
    super("Unknown", message);
  }
}

export interface AuthorizerOptions {
  readonly credentials?: CredentialSource | undefined;
  readonly userAgent: string;
  readonly dump?: ((text: string) => void) | undefined;
}

/** What a request needs the authorization for. */
export interface Access {
  readonly host: RegistryHost;
  readonly url: URL;
  readonly tls: BunFetchRequestInitTLS | undefined;
  readonly scopes: readonly string[];
  /** `Authorization` of the request that was refused. */
  readonly sent?: string | undefined;
  /** The host was not asked by us but redirected to: it is told nothing that we know, and at most asked for a stranger's token. */
  readonly isElsewhere?: boolean;
}

interface Known {
  /** `Authorization` for everything at this host. */
  readonly header?: string;
  readonly bearer?: {
    readonly challenge: Challenge;
    readonly credentials: Exclude<Credentials, { readonly header: string }> | undefined;
    readonly tokens: Map<string, Promise<Token>>;
    /** Scopes that a refusal named beyond those asked for, by those asked for. */
    readonly extra: Map<string, readonly string[]>;
  };
}

export class Authorizer {
  readonly #options: AuthorizerOptions;
  readonly #known = new Map<string, Known>();

  constructor(options: AuthorizerOptions) {
    this.#options = options;
  }

  forget(): void {
    this.#known.clear();
  }

  /** The value of `Authorization`, if the host has asked for one. @throws what the token server says */
  async authorize(access: Access): Promise<string | undefined> {
    const known = this.#known.get(keyOf(access));
    if (known?.bearer === undefined) return known?.header;
    const { bearer } = known;
    const asked = access.scopes.join(" ");
    const scopes = [...new Set([...access.scopes, ...(bearer.extra.get(asked) ?? [])])].sort();
    const key = scopes.join(" ");
    const cached = bearer.tokens.get(key);
    if (cached !== undefined && (await cached).expiresAtMs > performance.now()) {
      return `Bearer ${(await cached).value}`;
    }
    const token = this.#fetch(access, bearer, scopes);
    bearer.tokens.set(key, token);
    try {
      return `Bearer ${(await token).value}`;
    } catch (error) {
      if (bearer.tokens.get(key) === token) bearer.tokens.delete(key);
      throw error;
    }
  }

  async #fetch(
    { host, url, tls, isElsewhere }: Access,
    { challenge, credentials }: NonNullable<Known["bearer"]>,
    scopes: readonly string[],
  ): Promise<Token> {
    const { userAgent, dump } = this.#options;
    const realm = realmOf(challenge.parameters.get("realm"), url, credentials !== undefined);
    const headers = new Headers({ "user-agent": userAgent });
    // Headers of hosts.toml may hold secrets for this very host.
    const isItself = realm.origin === url.origin && isElsewhere !== true;
    if (isItself) for (const [name, value] of host.headers) headers.append(name, value);
    const service = challenge.parameters.get("service") ?? "";
    try {
      return await fetchToken({ realm, service, scopes, credentials, headers, tls, dump });
    } catch (error) {
      const what = credentials === undefined ? "anonymous token" : "oauth token";
      throw new BunkerdError("Unknown", `failed to fetch ${what}: ${messageOfFailure(error, realm)}`, {
        cause: error,
      });
    }
  }

  /**
   * Learns from a refusal (401). True if the request may now fare better; false if we cannot do what is asked for.
   * @throws AuthorizationFailure if trying again is no use, what the source of credentials throws
   */
  async refused(access: Access, header: string | null, refusals: number): Promise<boolean> {
    const key = keyOf(access);
    for (const challenge of parseChallenges(header ?? "")) {
      if (challenge.scheme === "bearer") return await this.#bearer(key, access, header, challenge, refusals);
      if (access.isElsewhere === true) return false;
      const credentials = await this.#credentialsFor(key, header);
      if (credentials === undefined || !hasName(credentials)) {
        if (credentials !== undefined && "header" in credentials)
          return this.#learn(key, credentials.header, refusals);
        throw new AuthorizationFailure("authorization failed: no basic auth credentials");
      }
      return this.#learn(key, basicOf(credentials.username, credentials.secret), refusals);
    }
    return false;
  }

  #learn(key: string, header: string, refusals: number): boolean {
    // The same again would be refused again.
    if (refusals > 0 && this.#known.get(key)?.header === header) return false;
    this.#known.set(key, { header });
    return true;
  }

  async #bearer(
    key: string,
    access: Access,
    header: string | null,
    challenge: Challenge,
    refusals: number,
  ): Promise<boolean> {
    const before = this.#known.get(key)?.bearer;
    const reason = challenge.parameters.get("error");
    const asked = access.scopes.join(" ");
    const named = (challenge.parameters.get("scope") ?? "").split(" ").filter((scope) => scope !== "");
    const wanted = named.filter((scope) => !isCovered(scope, access.scopes));
    const isNews = wanted.some((scope) => !isCovered(scope, before?.extra.get(asked) ?? []));
    if (refusals > 0 && !isNews) {
      this.#known.delete(key);
      if (reason === undefined) return false;
      throw new AuthorizationFailure(`server message: ${shorten(reason)}: authorization failed`);
    }
    const isElsewhere = access.isElsewhere === true;
    const credentials =
      before?.credentials ?? (isElsewhere ? undefined : await this.#credentialsFor(key, header));
    if (credentials !== undefined && "header" in credentials)
      return this.#learn(key, credentials.header, refusals);
    const extra = new Map(before?.extra);
    extra.set(asked, [...new Set([...(extra.get(asked) ?? []), ...wanted])]);
    // A token that was refused goes, whatever it said of its end.
    const tokens = access.sent === undefined && !isElsewhere ? (before?.tokens ?? new Map()) : new Map();
    this.#known.set(key, { bearer: { challenge, credentials, tokens, extra } });
    return true;
  }

  async #credentialsFor(host: string, header: string | null): Promise<Credentials | undefined> {
    const found = await this.#options.credentials?.({ host, challenges: header === null ? [] : [header] });
    if (found !== undefined && "header" in found && !/^[\x20-\x7e]+$/.test(found.header))
      throw new BunkerdError("InvalidArgument", `credentials for ${host}: no header of HTTP`);
    if (found === undefined || "header" in found) return found;
    return found.secret === "" ? undefined : found.username === "" ? { secret: found.secret } : found;
  }
}

function keyOf({ url, isElsewhere }: Access): string {
  return isElsewhere === true ? `elsewhere ${url.host}` : url.host;
}

/** Whether others ask for all of it: `repository:a:pull` is in `repository:a:pull,push`. */
function isCovered(scope: string, others: readonly string[]): boolean {
  const [resource, actions] = splitScope(scope);
  return others.some((other) => {
    const [otherResource, otherActions] = splitScope(other);
    return otherResource === resource && actions.every((action) => otherActions.includes(action));
  });
}

/** A resource's name may hold colons. */
function splitScope(scope: string): [resource: string, actions: string[]] {
  const colon = scope.lastIndexOf(":");
  return [scope.slice(0, colon), scope.slice(colon + 1).split(",")];
}

function hasName(credentials: Credentials): credentials is { username: string; secret: string } {
  return !("header" in credentials) && credentials.username !== undefined;
}

function shorten(text: string): string {
  return quote(text.slice(0, 64)).slice(1, -1);
}
