import { BunkerdError, quote } from "./errors.ts";
import { parseJson } from "./oci.ts";

/** How an image wants to be run: `config` of an image config (image-spec `config.md`). Empty where the image says nothing. */
export interface ImageConfig {
  readonly user: string;
  /** `NAME=value`. */
  readonly env: readonly string[];
  readonly entrypoint: readonly string[];
  readonly cmd: readonly string[];
  /** Paths in the container. */
  readonly volumes: readonly string[];
  readonly workingDir: string;
  readonly labels: Readonly<Record<string, string>>;
  /** A name or a number. */
  readonly stopSignal: string;
}

/** @throws Unknown on a document that is none */
export function parseImageConfig(bytes: Uint8Array, digest: string): ImageConfig {
  const what = `image config ${digest}`;
  const fields = object(object(parseJson(bytes, `unmarshal ${what}`), what)["config"], what);
  return {
    user: text(fields["User"], what),
    env: texts(fields["Env"], what),
    entrypoint: texts(fields["Entrypoint"], what),
    cmd: texts(fields["Cmd"], what),
    volumes: Object.keys(object(fields["Volumes"], what)).sort(),
    workingDir: text(fields["WorkingDir"], what),
    labels: Object.fromEntries(
      Object.entries(object(fields["Labels"], what)).map(([key, value]) => [key, text(value, what)]),
    ),
    stopSignal: text(fields["StopSignal"], what),
  };
}

type Json = Readonly<Record<string, unknown>>;

function object(value: unknown, what: string): Json {
  if (value === undefined || value === null) return {};
  if (typeof value === "object" && !Array.isArray(value)) return value as Json;
  throw malformed(what, "an object", value);
}

function texts(value: unknown, what: string): string[] {
  if (value === undefined || value === null) return [];
  if (!Array.isArray(value)) throw malformed(what, "a list of texts", value);
  return value.map((item) => text(item, what));
}

function text(value: unknown, what: string): string {
  if (value === undefined || value === null) return "";
  if (typeof value === "string") return value;
  throw malformed(what, "a text", value);
}

function malformed(what: string, expected: string, value: unknown): BunkerdError {
  return new BunkerdError("Unknown", `${what}: expected ${expected}, not ${quote(JSON.stringify(value))}`);
}
