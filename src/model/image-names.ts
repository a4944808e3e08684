import { digestFault } from "./digests.ts";
import { BunkerdError, quote } from "./errors.ts";

/*
 * Names of images as Docker reads them (`github.com/distribution/reference`): a short name stands for one at Docker Hub.
 */

const HUB = "docker.io";
const LEGACY_HUB = "index.docker.io";
const OFFICIAL = "library/";
const MAX_PATH_CHARACTERS = 255;

const DOMAIN_PART = "(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])";
const DOMAIN = `(?:${DOMAIN_PART}(?:\\.${DOMAIN_PART})*|\\[(?:[a-fA-F0-9:]+)\\])(?::[0-9]+)?`;
const PATH_PART = "[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*";
const PATH = `${PATH_PART}(?:/${PATH_PART})*`;
const TAG = "\\w[\\w.-]{0,127}";
const DIGEST = "[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}";
const NAME = new RegExp(`^(${DOMAIN})/(${PATH})(?::(${TAG}))?(?:@(${DIGEST}))?$`);

interface ImageName {
  readonly domain: string;
  readonly path: string;
  readonly tag: string | undefined;
  readonly digest: string | undefined;
}

/**
 * `busybox` as `docker.io/library/busybox:latest`; a digest makes a tag superfluous.
 * @throws Unknown, in the reference's words, after the context
 */
export function normalizeImageName(text: string, context = `normalize image ref ${quote(text)}`): string {
  const { domain, path, tag, digest } = parse(text, context);
  const name = `${domain}/${path}`;
  return digest === undefined ? `${name}:${tag ?? "latest"}` : `${name}@${digest}`;
}

/** `docker.io/library/busybox` as `busybox:latest`: how Docker shows it. @throws Unknown, in the reference's words */
export function familiarImageName(text: string): string {
  const { domain, path, tag, digest } = parse(text, `failed to parse ${quote(text)}`);
  const isOfficial = path.startsWith(OFFICIAL) && !path.slice(OFFICIAL.length).includes("/");
  const name = domain !== HUB ? `${domain}/${path}` : isOfficial ? path.slice(OFFICIAL.length) : path;
  const tagged = tag === undefined && digest === undefined ? "latest" : tag;
  return `${name}${tagged === undefined ? "" : `:${tagged}`}${digest === undefined ? "" : `@${digest}`}`;
}

function parse(text: string, context: string): ImageName {
  const fault = (reason: string): BunkerdError => new BunkerdError("Unknown", `${context}: ${reason}`);
  if (/^[a-f0-9]{64}$/.test(text))
    throw fault(`invalid repository name (${text}), cannot specify 64-byte hexadecimal strings`);
  const [domain, rest] = splitDomain(text);
  const repository = rest.split(":", 1)[0] ?? "";
  if (repository !== repository.toLowerCase())
    throw fault(`invalid reference format: repository name (${repository}) must be lowercase`);
  const [, host, path, tag, digest] = NAME.exec(`${domain}/${rest}`) ?? [];
  if (host === undefined || path === undefined) throw fault("invalid reference format");
  if (path.length > MAX_PATH_CHARACTERS)
    throw fault(`repository name must not be more than ${MAX_PATH_CHARACTERS} characters`);
  const wrong = digest === undefined ? undefined : digestFault(digest);
  if (wrong !== undefined) throw fault(wrong);
  return { domain: host, path, tag, digest };
}

/** A first part without a dot, a colon or a capital letter is no host. */
function splitDomain(text: string): [domain: string, rest: string] {
  const slash = text.indexOf("/");
  const first = slash < 0 ? "" : text.slice(0, slash);
  const isHost = first === "localhost" || /[.:]/.test(first) || first !== first.toLowerCase();
  const [domain, rest] = isHost ? [first, text.slice(slash + 1)] : [HUB, text];
  if (domain !== HUB && domain !== LEGACY_HUB) return [domain, rest];
  return [HUB, rest.includes("/") ? rest : `${OFFICIAL}${rest}`];
}
