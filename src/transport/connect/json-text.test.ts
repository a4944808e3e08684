import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { describeJsonError, itemsOf, kindOf, membersOf } from "./json-text.ts";

describe("membersOf", () => {
  test("cuts where the members stand, spaces and all", () => {
    const text = ' { "a" : {"b": [1, "}\\"]"]} ,"c\\u0064":18446744073709551615,"":"\\\\" } ';
    expect(membersOf(text)).toEqual([
      { key: "a", text: '{"b": [1, "}\\"]"]}' },
      { key: "cd", text: "18446744073709551615" },
      { key: "", text: '"\\\\"' },
    ]);
  });

  test("agrees with JSON.parse on any object", () => {
    fc.assert(
      fc.property(fc.dictionary(fc.string(), fc.jsonValue()), fc.nat(3), (value, spaces) => {
        const members = membersOf(JSON.stringify(value, null, spaces));
        const parsed = Object.fromEntries(members.map(({ key, text }) => [key, JSON.parse(text) as unknown]));
        expect(JSON.stringify(parsed)).toBe(JSON.stringify(value));
      }),
    );
  });
});

describe("itemsOf", () => {
  test("agrees with JSON.parse on any array", () => {
    fc.assert(
      fc.property(fc.array(fc.jsonValue()), fc.nat(3), (value, spaces) => {
        const items = itemsOf(JSON.stringify(value, null, spaces)).map((text) => JSON.parse(text) as unknown);
        expect(JSON.stringify(items)).toBe(JSON.stringify(value));
      }),
    );
  });
});

test("kindOf", () => {
  expect([" {}", "[]", '""', "-1", "true", "false", "null"].map(kindOf)).toEqual([
    "object",
    "array",
    "string",
    "number",
    "boolean",
    "boolean",
    "null",
  ]);
});

describe("describeJsonError", () => {
  const cases: readonly (readonly [string, string])[] = [
    ['{"a": foo}', 'line 1, column 7: expected a value, found "foo"'],
    ['{"a": 1,\n  b: 2}', 'line 2, column 3: expected a name in double quotes, found "b"'],
    ['{"a" 1}', 'line 1, column 6: expected ":", found "1"'],
    ['{"a": 1', 'line 1, column 8: expected "," or "}", found the end of the text'],
    ["[1 2]", 'line 1, column 4: expected "," or "]", found "2"'],
    ["[1,]", 'line 1, column 4: expected a value, found "]"'],
    ['{"a": 1,}', 'line 1, column 9: expected a name in double quotes, found "}"'],
    ["{} {}", 'line 1, column 4: expected the end, found "{"'],
    ["", "line 1, column 1: expected a value, found the end of the text"],
    ["[01]", 'line 1, column 2: expected a value, found "01"'],
    ['{"a": "x\ny"}', 'line 1, column 7: expected a value, found "\\"x"'],
    ["[}", 'line 1, column 2: expected a value, found "}"'],
  ];
  for (const [text, message] of cases) {
    test(JSON.stringify(text), () => expect(describeJsonError(text)).toBe(message));
  }

  test("finds a fault exactly where JSON.parse does", () => {
    fc.assert(
      fc.property(
        fc.json(),
        fc.nat(),
        fc.constantFrom("", ",", '"', "}", "]", "x", "0", "\\", "\n"),
        (json, at, insert) => {
          const cut = at % (json.length + 1);
          const text = json.slice(0, cut) + insert + json.slice(insert === "" ? cut + 1 : cut);
          let valid = true;
          try {
            JSON.parse(text);
          } catch {
            valid = false;
          }
          expect(describeJsonError(text) === undefined).toBe(valid);
        },
      ),
      { numRuns: 2000 },
    );
  });

  test("a long string is no trouble", () => {
    expect(describeJsonError(`["${"x".repeat(16 << 20)}"`)).toContain('expected "," or "]"');
  });
});
