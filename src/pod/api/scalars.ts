/**
 * YAML's plain numbers as Kubernetes' parser reads them (`go.yaml.in/yaml/v2`, `resolve.go`): YAML 1.1's octals, but none of base 60 and no
 * dates; what is no number to it, such as `.` or `e5`, is text.
 */
import { defineScalarTag, NOT_RESOLVED } from "js-yaml";

const INT = /^[-+]?(?:0[xX][0-9a-fA-F_]+|0[bB][01_]+|0[oO][0-7_]+|[0-9][0-9_]*)$/;
const FLOAT = /^[-+]?(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?$/;
const NOT_A_NUMBER = /^(?:[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$/;

/** JSON has none of them. */
export class NoNumber extends Error {
  readonly text: string;

  constructor(text: string) {
    super(`${text} is no number`);
    this.text = text;
  }
}

function numberOf(written: string): number {
  const text = written.replaceAll("_", "");
  const [, sign = "", digits = ""] = /^([-+]?)(.*)$/s.exec(text) ?? [];
  const octal = /^0[oO]?([0-7]+)$/.exec(digits)?.[1];
  const size = octal === undefined ? Number(digits) : Number.parseInt(octal, 8);
  return sign === "-" ? -size : size;
}

const int = defineScalarTag("tag:yaml.org,2002:int", {
  implicit: true,
  implicitFirstChars: [..."+-0123456789"],
  resolve: (text) => (INT.test(text) ? numberOf(text) : NOT_RESOLVED),
  identify: () => false,
});

const float = defineScalarTag("tag:yaml.org,2002:float", {
  implicit: true,
  implicitFirstChars: [..."+-.0123456789"],
  resolve: (text) => {
    if (NOT_A_NUMBER.test(text)) throw new NoNumber(text);
    return FLOAT.test(text) ? numberOf(text) : NOT_RESOLVED;
  },
  identify: () => false,
});

export const numberTags = [int, float];
