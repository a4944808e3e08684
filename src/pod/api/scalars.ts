/**
 * YAML's plain numbers as Kubernetes' parser reads them (`go.yaml.in/yaml/v2`, `resolve.go`): YAML 1.1's octals, but none of base 60 and no
 * dates; what is no number to it, such as `.`, `e5` or what is larger than its types, is text.
 */
import { DUMP_SCHEMA, defineScalarTag, NOT_RESOLVED } from "js-yaml";

const INT = /^([-+]?)(0[xX][0-9a-fA-F]+|0[bB][01]+|0[oO]?([0-7]+)|0|[1-9][0-9]*)$/;
const FLOAT = /^[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?$/;
const NOT_A_NUMBER = /^(?:[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$/;

/** JSON has none of them. */
export class NoNumber extends Error {
  readonly text: string;

  constructor(text: string) {
    super(`${text} is no number`);
    this.text = text;
  }
}

/** Lines in numbers are passed over; in those that begin with a point only between two digits. */
function bare(text: string): string {
  return text.startsWith(".") ? text.replaceAll(/(?<=\d)_(?=\d)/g, "") : text.replaceAll("_", "");
}

/** Undefined: none of 64 bits. */
function intOf(text: string): number | undefined {
  const [, sign, digits = "", octal] = INT.exec(bare(text)) ?? [];
  if (sign === undefined) return undefined;
  const size = octal === undefined ? Number(digits) : Number.parseInt(octal, 8);
  if (size >= (sign === "-" ? 2 ** 63 : 2 ** 64)) return undefined;
  return sign === "-" ? -size : size;
}

/** Undefined: none, or none of 64 bits. */
function floatOf(text: string): number | undefined {
  const plain = bare(text);
  const value = FLOAT.test(plain) ? Number(plain) : Number.NaN;
  return Number.isFinite(value) ? value : undefined;
}

const int = defineScalarTag("tag:yaml.org,2002:int", {
  implicit: true,
  implicitFirstChars: [..."+-0123456789"],
  resolve: (text) => intOf(text) ?? NOT_RESOLVED,
  identify: () => false,
});

const float = defineScalarTag("tag:yaml.org,2002:float", {
  implicit: true,
  implicitFirstChars: [..."+-.0123456789"],
  resolve: (text) => {
    if (NOT_A_NUMBER.test(text)) throw new NoNumber(text);
    return floatOf(text) ?? NOT_RESOLVED;
  },
  identify: () => false,
});

export const numberTags = [int, float];

/** Only Kubernetes reads numbers in them. */
const ours = defineScalarTag("tag:bunkerd,number", {
  implicit: true,
  implicitFirstChars: [..."+-.0123456789"],
  resolve: (text) => intOf(text) ?? floatOf(text) ?? NOT_RESOLVED,
  identify: () => false,
});

/** Whatever a parser of YAML 1.1, as kubectl's, or 1.2 could read as something else than text stands in quotes. */
export const WRITTEN = DUMP_SCHEMA.withTags(ours);
