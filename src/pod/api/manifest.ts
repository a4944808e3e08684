/** Files of YAML or JSON documents to objects of `v1`, with errors that name file, line, path and the nearest name. */
import * as v from "valibot";
import { nearest } from "../../lib/nearest.ts";
import { BunkerdError, messageOf } from "../../model/errors.ts";
import { type Path, readDocuments, type YamlDocument, YamlError } from "./documents.ts";
import { type ConfigMap, configMap, type ObjectMeta, type Secret, secret } from "./meta.ts";
import { type PodFile, podFile } from "./pod.ts";
import { type Problem, validatePod } from "./validate.ts";
import { validateConfigMap, validateSecret } from "./validate-objects.ts";

/** What the documents of a file, or of several, hold. */
export interface Manifest {
  readonly pods: readonly PodFile[];
  readonly configMaps: readonly ConfigMap[];
  readonly secrets: readonly Secret[];
}

/** More than a person writes, less than a parser chokes on. */
const MAX_BYTES = 4 << 20;
/** Problems of one file that are told. */
const MAX_PROBLEMS = 20;

const KINDS: Readonly<Record<string, v.GenericSchema>> = {
  Pod: podFile,
  ConfigMap: configMap,
  Secret: secret,
};

/** @throws InvalidArgument with a line for each problem */
export function parseManifest(text: string, file: string): Manifest {
  if (Buffer.byteLength(text) > MAX_BYTES) throw refuse([`${file}: larger than ${MAX_BYTES} bytes`]);
  const found: Found = { pods: [], configMaps: [], secrets: [] };
  const problems: string[] = [];
  for (const { value, lineOf } of documentsOf(text, file)) {
    readDocument(value, text.length, found, (path, message) => {
      problems.push(`${file}:${lineOf(path)}: ${path.length === 0 ? "" : `${formatPath(path)}: `}${message}`);
    });
  }
  if (problems.length > 0) throw refuse(problems);
  return found;
}

function documentsOf(text: string, file: string): YamlDocument[] {
  try {
    return readDocuments(text);
  } catch (error) {
    if (error instanceof YamlError) throw refuse([`${file}:${error.line}:${error.column}: ${error.message}`]);
    throw error;
  }
}

interface Found {
  readonly pods: PodFile[];
  readonly configMaps: ConfigMap[];
  readonly secrets: Secret[];
}

type Report = (path: Path, message: string) => void;

function readDocument(written: unknown, length: number, found: Found, report: Report): void {
  let value: unknown;
  try {
    value = new Values(length).withoutNulls(written);
  } catch (error) {
    report([], messageOf(error));
    return;
  }
  if (value === null || value === undefined) return;
  if (typeof value !== "object" || Array.isArray(value)) {
    report([], "a document must be a mapping with apiVersion and kind");
    return;
  }
  const { kind, items } = value as { kind?: unknown; items?: unknown };
  if (kind === "List" && Array.isArray(items)) {
    items.forEach((item: unknown, index) => {
      readObject(item, found, (path, message) => report(["items", index, ...path], message));
    });
  } else readObject(value, found, report);
}

function readObject(value: unknown, found: Found, report: Report): void {
  const kind = (value as { kind?: unknown } | null)?.kind;
  const schema = typeof kind === "string" ? KINDS[kind] : undefined;
  if (schema === undefined) {
    const meant = typeof kind === "string" ? nearest(kind, Object.keys(KINDS)) : undefined;
    const advice =
      meant === undefined ? `must be one of ${Object.keys(KINDS).join(", ")}` : `did you mean ${meant}?`;
    report(["kind"], `${kind === undefined ? "is missing" : `${show(kind)} is not carried out`}, ${advice}`);
    return;
  }
  const result = v.safeParse(schema, value);
  if (!result.success) {
    for (const issue of result.issues) tellIssue(issue, schema, report);
    return;
  }
  for (const { path, message } of addTo(found, result.output as PodFile | ConfigMap | Secret))
    report(path, message);
}

/** What is wrong with the object, or with there being another of its name. */
function addTo({ pods, configMaps, secrets }: Found, object: PodFile | ConfigMap | Secret): Problem[] {
  const { name, namespace } = object.metadata;
  const isThere = (others: readonly { readonly metadata: ObjectMeta }[]): Problem[] =>
    others.some(({ metadata }) => metadata.name === name && metadata.namespace === namespace)
      ? [
          {
            path: ["metadata", "name"],
            message: `duplicate value ${show(name)}: the file has such a ${object.kind} already`,
          },
        ]
      : [];
  if (object.kind === "ConfigMap") {
    const problems = [...isThere(configMaps), ...validateConfigMap(object)];
    configMaps.push(object);
    return problems;
  }
  if (object.kind === "Secret") {
    const problems = [...isThere(secrets), ...validateSecret(object)];
    secrets.push(object);
    return problems;
  }
  const problems = [...isThere(pods), ...validatePod(object)];
  pods.push(object);
  return problems;
}

function tellIssue(issue: v.BaseIssue<unknown>, schema: v.GenericSchema, report: Report): void {
  const path = (issue.path ?? []).map(({ key }) => key as string | number);
  const last = path.at(-1);
  if (issue.type === "strict_object" && issue.expected === "never") {
    const meant = nearest(String(last), namesAt(schema, path.slice(0, -1)));
    report(path, `unknown field${meant === undefined ? "" : `, did you mean ${meant}?`}`);
  } else if (
    issue.type === "strict_object" &&
    issue.received === "undefined" &&
    issue.path?.at(-1)?.origin === "key"
  ) {
    report(path, "is missing");
  } else if (issue.kind === "schema" && !issue.message.startsWith("Invalid")) report(path, issue.message);
  else if (issue.kind === "schema")
    report(path, `must be ${expected(issue.expected)}, not ${show(issue.input)}${advice(issue)}`);
  else report(path, `${issue.message}, not ${show(issue.input)}`);
}

/** YAML 1.1 reads `y`, `on` and `0x1` as anything but text. */
function advice({ expected: wanted, input }: v.BaseIssue<unknown>): string {
  const isPlain = typeof input === "boolean" || typeof input === "number";
  return wanted === "string" && isPlain ? "; put it in quotes" : "";
}

const WORDS: Readonly<Record<string, string>> = {
  string: "a string",
  number: "a number",
  boolean: "true or false",
  Array: "a list",
  Object: "a mapping",
};

function expected(word: string | null): string {
  return WORDS[word ?? ""] ?? String(word);
}

/** The fields that the schema knows at a path. */
function namesAt(schema: unknown, path: Path): string[] {
  let at = unwrap(schema);
  for (const key of path) {
    at = unwrap(typeof key === "number" ? at?.item : at?.entries?.[key]);
  }
  return Object.keys(at?.entries ?? {});
}

interface AnySchema {
  readonly wrapped?: unknown;
  readonly item?: unknown;
  readonly entries?: Readonly<Record<string, unknown>>;
}

function unwrap(schema: unknown): AnySchema | undefined {
  let at = schema as AnySchema | undefined;
  while (at?.wrapped !== undefined) at = at.wrapped as AnySchema;
  return at;
}

/** `spec.containers[0].image`, keys with dots in quotes. */
export function formatPath(path: Path): string {
  return path.reduce<string>((text, key) => {
    if (typeof key === "number") return `${text}[${key}]`;
    if (!/^[\w-]+$/.test(key)) return `${text}[${JSON.stringify(key)}]`;
    return text === "" ? key : `${text}.${key}`;
  }, "");
}

/** Maps of strings, whose keys are the user's own. */
const STRING_MAPS = ["data", "stringData", "binaryData", "labels", "annotations"];

/** Aliases may make many values of a short text; that many are no matter. */
const MAX_VALUES = 400_000;

/** The values of a document, each by itself: what aliases name is copied. */
class Values {
  #left: number;
  readonly #within = new Set<object>();

  /** @param length of the text: without aliases there are no more values */
  constructor(length: number) {
    this.#left = Math.max(length, MAX_VALUES);
  }

  /** Kubernetes reads `field:` with nothing behind it as if it were not there; in a map of strings it is an empty one. @throws Error */
  withoutNulls(value: unknown, name = ""): unknown {
    this.#left -= 1;
    if (this.#left < 0) throw new Error("excessive aliasing");
    if (typeof value !== "object" || value === null) return value;
    if (this.#within.has(value)) throw new Error("an alias lies within what it names");
    this.#within.add(value);
    const copied = Array.isArray(value)
      ? value.map((inner: unknown) => this.withoutNulls(inner))
      : this.#mapping(value, STRING_MAPS.includes(name));
    this.#within.delete(value);
    return copied;
  }

  #mapping(value: object, isStrings: boolean): object {
    return Object.fromEntries(
      Object.entries(value)
        .filter(([, inner]) => isStrings || inner !== null)
        .map(([key, inner]) => [key, isStrings && inner === null ? "" : this.withoutNulls(inner, key)]),
    );
  }
}

function show(value: unknown): string {
  if (Array.isArray(value)) return "a list";
  if (typeof value === "object" && value !== null) return "a mapping";
  const text = JSON.stringify(value) ?? String(value);
  return text.length > 60 ? `${text.slice(0, 60)}…` : text;
}

function refuse(problems: readonly string[]): BunkerdError {
  const told = problems.slice(0, MAX_PROBLEMS);
  if (problems.length > told.length) told.push(`and ${problems.length - told.length} more problems`);
  return new BunkerdError("InvalidArgument", told.join("\n"));
}
