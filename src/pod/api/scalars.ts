/**
 * YAML's plain scalars as Kubernetes' parser reads them (`go.yaml.in/yaml/v2`, `resolve.go`): YAML 1.1's truth values and octals, but no
 * numbers of base 60 and no dates; what is no number to it, such as `.` or `e5`, is text.
 */
import type { ScalarTag, Tags } from "yaml";

const INT = /^[-+]?(?:0[xX][0-9a-fA-F_]+|0[bB][01_]+|0[oO][0-7_]+|[0-9][0-9_]*)$/;
const FLOAT = /^[-+]?(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?$/;
const NOT_A_NUMBER = /^(?:[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$/;

function numberOf(written: string): number {
  const text = written.replaceAll("_", "");
  const [, sign = "", digits = ""] = /^([-+]?)(.*)$/s.exec(text) ?? [];
  const octal = /^0[oO]?([0-7]+)$/.exec(digits)?.[1];
  const size = octal === undefined ? Number(digits) : Number.parseInt(octal, 8);
  return sign === "-" ? -size : size;
}

const int: ScalarTag = {
  identify: (value) => typeof value === "number" && Number.isInteger(value),
  default: true,
  tag: "tag:yaml.org,2002:int",
  test: INT,
  resolve: numberOf,
};

const float: ScalarTag = {
  identify: (value) => typeof value === "number",
  default: true,
  tag: "tag:yaml.org,2002:float",
  test: FLOAT,
  resolve: numberOf,
};

/** JSON has none of them. */
const notANumber: ScalarTag = {
  identify: () => false,
  default: true,
  tag: "tag:yaml.org,2002:float",
  test: NOT_A_NUMBER,
  resolve: (text, onError) => {
    onError(`${text} is no number`);
    return text;
  },
};

const REPLACED = ["int", "float", "timestamp"].map((name) => `tag:yaml.org,2002:${name}`);

/** Option of a parser of YAML 1.1. */
export function kubernetesTags(tags: Tags): Tags {
  const kept = tags.filter((tag) => typeof tag === "string" || !REPLACED.includes(tag.tag));
  return [...kept, int, float, notANumber];
}

/** Option of a writer: quotes are put around whatever anybody could read as something else than text. */
export function cautiousTags(tags: Tags): Tags {
  return [...tags, int, float];
}
