/** The documents of a YAML file, with the line of each value. */
import {
  boolYaml11Tag,
  constructFromEvents,
  dump,
  EVENT_ID,
  type Event,
  FAILSAFE_SCHEMA,
  getScalarValue,
  mergeTag,
  nullYaml11Tag,
  parseEvents,
  SCALAR_STYLE,
  YAMLException,
} from "js-yaml";
import { quote } from "../../model/errors.ts";
import { NoNumber, numberTags, WRITTEN } from "./scalars.ts";

export type Path = readonly (string | number)[];

export interface YamlDocument {
  /** Aliases are the same object again, and may lie within what they name. Undefined: there is nothing in it. */
  readonly value: unknown;
  /** From 1; of the deepest part of the path that there is. */
  lineOf(path: Path): number;
}

/** Why a text is no YAML, and where: line and column from 1. */
export class YamlError extends Error {
  readonly line: number;
  readonly column: number;

  constructor(message: string, line: number, column: number, cause: unknown) {
    super(message, { cause });
    this.line = line;
    this.column = column;
  }
}

/** Kubernetes reads YAML 1.1: 0644 is octal, `yes` a truth value. */
const SCHEMA = FAILSAFE_SCHEMA.withTags(nullYaml11Tag, boolYaml11Tag, numberTags, mergeTag);

/** @throws YamlError */
export function readDocuments(text: string): YamlDocument[] {
  let events: Event[] = [];
  try {
    events = parseEvents(text, {});
    const starts = events.flatMap((_, at) => (isDocument(events, at) ? [at + 1] : []));
    return constructFromEvents(events, { source: text, schema: SCHEMA }).map((value, index) => ({
      value,
      lineOf: (path) => placeOf(text, offsetOf(text, events, starts[index] ?? 0, path)).line,
    }));
  } catch (error) {
    throw asYamlError(error, text, events);
  }
}

/** A document that Kubernetes' parser, and any other, reads as the same. */
export function writeDocument(value: object): string {
  return dump(value, { schema: WRITTEN, lineWidth: -1, noRefs: true });
}

function isDocument(events: readonly Event[], at: number): boolean {
  return events[at]?.type === EVENT_ID.DOCUMENT;
}

function asYamlError(error: unknown, text: string, events: readonly Event[]): unknown {
  if (error instanceof YAMLException) {
    const { line = 0, column = 0, position = 0 } = error.mark ?? {};
    const at = events.find((event) => startOf(event) === position);
    const isTwice = error.reason === "duplicated mapping key" && at?.type === EVENT_ID.SCALAR;
    const reason = isTwice
      ? `key ${quote(getScalarValue(text, at))} stands there twice`
      : meant(error.reason, text[position]);
    return new YamlError(reason, line + 1, column + 1, error);
  }
  if (!(error instanceof NoNumber)) return error;
  const at = events.findIndex(
    (event) =>
      event.type === EVENT_ID.SCALAR &&
      event.style === SCALAR_STYLE.PLAIN &&
      getScalarValue(text, event) === error.text,
  );
  const { line, column } = placeOf(text, startOf(events[at]) ?? 0);
  return new YamlError(error.message, line, column, error);
}

/** What most likely stands behind a parser's reason. @param at the sign where it gave up */
function meant(reason: string, at = ""): string {
  const isEntry = reason === "bad indentation of a mapping entry";
  if (isEntry && "@`%".includes(at) && at !== "")
    return `no text begins with ${quote(at)} unless it is in quotes`;
  if (isEntry && at === ":") return `${reason}, or ": " in a text that is not in quotes`;
  if (isEntry && at === "-") return `${reason}: a list begins on a line of its own`;
  if (reason === "deficient indentation") return `${reason}, or a quote or bracket before it has no end`;
  if (reason === "missed comma between flow collection entries" && at === "-")
    return `"-" must be in quotes within brackets`;
  return reason;
}

function placeOf(text: string, offset: number): { line: number; column: number } {
  const before = text.slice(0, offset).split(/\r\n|\r|\n/);
  return { line: before.length, column: (before.at(-1)?.length ?? 0) + 1 };
}

/** Where the node at a path begins; that above it where there is none. */
function offsetOf(text: string, events: readonly Event[], root: number, path: Path): number {
  let node = root;
  let offset = startOf(events[node]) ?? 0;
  for (const key of path) {
    const found = childAt(text, events, node, key);
    if (found === undefined) break;
    node = found.node;
    offset = startOf(events[found.named]) ?? offset;
  }
  return offset;
}

/** The child's event, and that of what names it: its key, or itself. */
function childAt(
  text: string,
  events: readonly Event[],
  parent: number,
  key: string | number,
): { node: number; named: number } | undefined {
  const type = events[parent]?.type;
  if (type !== EVENT_ID.MAPPING && type !== EVENT_ID.SEQUENCE) return undefined;
  let child = parent + 1;
  for (let index = 0; events[child]?.type !== EVENT_ID.POP; index++) {
    if (type === EVENT_ID.SEQUENCE) {
      if (index === key) return { node: child, named: child };
      child = behind(events, child);
      continue;
    }
    const name = events[child];
    const node = behind(events, child);
    if (name?.type === EVENT_ID.SCALAR && getScalarValue(text, name) === key) return { node, named: child };
    child = behind(events, node);
  }
  return undefined;
}

/** The event that follows a node and all that is in it. */
function behind(events: readonly Event[], node: number): number {
  let depth = 0;
  let at = node;
  do {
    const type = events[at]?.type;
    if (type === EVENT_ID.MAPPING || type === EVENT_ID.SEQUENCE) depth += 1;
    else if (type === EVENT_ID.POP) depth -= 1;
    at += 1;
  } while (depth > 0 && at < events.length);
  return at;
}

function startOf(event: Event | undefined): number | undefined {
  switch (event?.type) {
    case EVENT_ID.SCALAR:
      return event.valueStart;
    case EVENT_ID.MAPPING:
    case EVENT_ID.SEQUENCE:
      return event.start;
    case EVENT_ID.ALIAS:
      return event.anchorStart;
    default:
      return undefined;
  }
}
