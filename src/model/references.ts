import { BunkerdError, quote } from "./errors.ts";

/* What registries are asked by (containerd `pkg/reference`): always with a host. What people type is in `image-names.ts`. */

/** `host/repository`, `:tag`, `@digest`. */
export interface Reference {
  /** With its port, as written: `registry.example:5000`, `docker.io`. */
  readonly host: string;
  /** Without the host; empty if nothing followed it. */
  readonly repository: string;
  /** What follows the name: `tag`, `tag@digest`, `@digest`; empty if nothing does. */
  readonly object: string;
  /** The object without its digest. */
  readonly tag: string;
  /** As written, unchecked; empty if there is none. */
  readonly digest: string;
}

const HOST = /^(?:[A-Za-z0-9_][A-Za-z0-9_.-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?$/;
const REPOSITORY = /^[A-Za-z0-9_.~+-]+(?:\/[A-Za-z0-9_.~+-]+)*$/;
const OBJECT = /^[A-Za-z0-9_.~+@:=-]*$/;
const MAX_REFERENCE_CHARACTERS = 4096;

/**
 * Reads a reference with a host. Stricter than containerd, which lets through what its URL parser does: no query, no escapes, no `..`.
 * @throws InvalidArgument
 */
export function parseReference(text: string): Reference {
  const slash = text.indexOf("/");
  const host = slash < 0 ? text : text.slice(0, slash);
  const rest = slash < 0 ? "" : text.slice(slash + 1);
  if (host === "") throw invalid(text, "hostname required");
  if (text.length > MAX_REFERENCE_CHARACTERS || text.includes("://") || !HOST.test(host)) throw invalid(text);
  const end = rest.search(/[:@]/);
  const repository = end < 0 ? rest : rest.slice(0, end);
  const object = end < 0 ? "" : rest.slice(rest[end] === ":" ? end + 1 : end);
  const dots = repository.split("/").some((component) => component === "." || component === "..");
  if ((repository !== "" && !REPOSITORY.test(repository)) || dots || !OBJECT.test(object))
    throw invalid(text);
  const at = object.indexOf("@");
  return {
    host,
    repository,
    object,
    tag: at < 0 ? object : object.slice(0, at),
    digest: at < 0 ? "" : object.slice(at + 1),
  };
}

function invalid(text: string, reason = "invalid reference"): BunkerdError {
  return new BunkerdError("InvalidArgument", `${reason}: ${quote(text)}`);
}
