import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { type Adaptor, FilterSyntaxError, parseFilter, parseFilters } from "./filters.ts";

interface Boat {
  readonly name: string;
  readonly cargo?: string;
  readonly flags?: Readonly<Record<string, string>>;
}

const fleet: readonly Boat[] = [
  { name: "argo", flags: { oar: "true" } },
  { name: "bark" },
  { name: "argo", flags: { oar: "present", "a longer flag": "present" } },
  { name: "bark", flags: { sail: "true" } },
  { name: "argonaut", flags: { 'flag with \\ and "': "present" } },
  { name: "argonaut", flags: { 'flag with \\ and ".tail': "present" } },
  { name: "cog", cargo: "too heavy, mate" },
  { name: "cogs", cargo: "abc" },
  { name: "dhow", flags: { oar: "un_two.three-four" } },
];

function adaptorOf(boat: Boat): Adaptor {
  return {
    field(path) {
      if (path[0] === "name") return boat.name || undefined;
      if (path[0] === "cargo") return boat.cargo || undefined;
      if (path[0] === "flags") return boat.flags?.[path.slice(1).join(".")];
      return undefined;
    },
  };
}

function matched(...filters: string[]): number[] {
  const filter = parseFilters(filters);
  return fleet.flatMap((boat, index) => (filter.match(adaptorOf(boat)) ? [index] : []));
}

const everyone = fleet.map((_, index) => index);

function errorOf(filter: string): string {
  try {
    parseFilter(filter);
  } catch (error) {
    expect(error).toBeInstanceOf(FilterSyntaxError);
    return (error as Error).message;
  }
  return "no error";
}

describe("filters match", () => {
  const cases: readonly [filters: string[], expected: readonly number[]][] = [
    [[], everyone],
    [[""], everyone],
    [["name"], everyone],
    [["flags.oar"], [0, 2, 8]],
    [["flags.oar,name"], [0, 2, 8]],
    [["flags.oar==true"], [0]],
    [["flags.oar==un_two.three-four"], [8]],
    [["name==bark"], [1, 3]],
    [["name!=bark"], [0, 2, 4, 5, 6, 7, 8]],
    [["name==bark,flags.sail"], [3]],
    [['cargo=="too heavy, mate"'], [6]],
    [["cargo~=[abc]+,name!=argo"], [6, 7]],
    [["cargo~=/[abc]+/,name!=argo"], [6, 7]],
    [["cargo~=/[abc]{1,2}/,name!=argo"], [6, 7]],
    [["cargo~=|^a[b/]c$|"], [7]],
    [['cargo~=/[abc]{0,1}"\\//,name!=argo'], []],
    [["name==bark,flags.sail==true"], [3]],
    [["name==bark,flags.sail==wrong"], []],
    [['name==argo,flags."a longer flag"'], [2]],
    [['flags."flag with \\\\ and \\""==present'], [4]],
    [['flags."flag with \\\\ and \\"".tail==present'], [5]],
    [['flags."flag with \\\\ and \\".tail"==present'], [5]],
    [[" name == bark, flags.sail"], [3]],
    [['"name"==cog'], [6]],
    [["nothing"], []],
    [["nothing!=x"], everyone],
    [["nothing~=^$"], everyone],
    [['nothing==""'], []],
    [
      ["name==cog", "name==dhow"],
      [6, 8],
    ],
    [["name==cog", ""], everyone],
    [['name=="\\x63\\157g"'], [6]],
    [['name=="\\u0063og\\U00000073"'], [7]],
  ];
  for (const [filters, expected] of cases) {
    test(JSON.stringify(filters), () => expect(matched(...filters)).toEqual([...expected]));
  }

  test("bytes written as escapes add up to UTF-8", () => {
    const filter = parseFilter('name=="\\xe7\\211\\x9b\\t"');
    expect(filter.match(adaptorOf({ name: "牛\t" }))).toBe(true);
  });

  test("letters of any script are values", () => {
    const filter = parseFilter("name~=牛,flags.moo=='x'");
    expect(filter.match(adaptorOf({ name: "水牛", flags: { moo: "'x'" } }))).toBe(true);
  });
});

describe("filters that cannot be read say where", () => {
  const cases: readonly [filter: string, message: string][] = [
    ["flags.|oar|==x", "[flags. >|||< oar|==x]: invalid quote encountered"],
    ["flags.?x", "[flags. >|?|< x]: expected field or quoted"],
    ["name==argo,", "[name==argo,]: expected field or quoted"],
    ["flags.", "[flags.]: expected field or quoted"],
    ["image~=,id?=?x", "[image~= >|,|< id?=?x]: expected value or quoted"],
    ["flags.ns/key==value", "[flags.ns >|/|< key==value]: quoted literal not terminated"],
    ["flags.key==/value", "[flags.key== >|/|< value]: quoted literal not terminated"],
    ['flags."a\nb"', '[flags. >|"|< a\nb"]: quoted literal not terminated'],
    ['flags."\\g"', '[flags. >|"|< \\g"]: illegal escape sequence'],
    ['flags."\\xaz"', '[flags. >|"|< \\xaz"]: illegal numeric escape sequence'],
    ['name=="\\400"', '[name== >|"|< \\400"]: unquoting failed: quote syntax error'],
    ['name=="\\U00110000"', '[name== >|"|< \\U00110000"]: unquoting failed: quote syntax error'],
    ["name=bark", '[name >|=|< bark]: unsupported operator "="'],
    ["name===bark", '[name >|=|< ==bark]: unsupported operator "==="'],
    ["name bark", '[name  >|b|< ark]: expected an operator ("=="|"!="|"~=")'],
    ["name==", "[name==]: expected value or quoted"],
    ["name==a b", "[name==a >| |< b]: unexpected input:  "],
    ["name\u0000", "[name >|\u0000|< ]: unexpected null"],
    ["name==\ud800", "[name== >|\ud800|< ]: rune error"],
  ];
  for (const [filter, message] of cases) {
    test(JSON.stringify(filter), () => expect(errorOf(filter)).toBe(`filters: parse error: ${message}`));
  }

  test("a long filter is shown around the mistake only", () => {
    const message = errorOf(`${"a".repeat(2_000_000)}?${"b".repeat(2_000_000)}`);
    expect(message.length).toBeLessThan(1200);
    expect(message).toContain("a >|?|< b");
  });
});

describe("patterns", () => {
  const cases: readonly [pattern: string, reason: string][] = [
    ["[a", "missing closing ]: `[a`"],
    ["(a", "missing closing ): `(a`"],
    ["a(?=b)", "invalid or unsupported Perl syntax: `(?=`"],
    ["a{1001}", "invalid repeat count: `{1001}`"],
    ["*a", "missing argument to repetition operator: `*`"],
  ];
  for (const [pattern, reason] of cases) {
    test(pattern, () => {
      expect(errorOf(`name~=${pattern}`)).toEndWith(`: error parsing regexp: ${reason}`);
    });
  }

  test("RE2 syntax that JavaScript lacks", () => {
    expect(matched("name~=(?i)^ARGO\\z")).toEqual([0, 2]);
    expect(matched("name~=^[[:alpha:]]{4}$")).toEqual([0, 1, 2, 3, 7, 8]);
  });

  test("nesting, length and size have limits", () => {
    expect(errorOf(`name~="${"(".repeat(30_000)}${")".repeat(30_000)}"`)).toContain("nest");
    expect(errorOf(`name~=${"a".repeat(65_537)}`)).toContain("longer than 65536 characters");
    expect(errorOf('name~="((a{100}){100}){100}"')).toContain("error parsing regexp");
  });

  test("no pattern backtracks", () => {
    const hostile = parseFilter('name~="^(a+)+(a|aa)*(a?){40}a{40}$"');
    expect(hostile.match(adaptorOf({ name: `${"a".repeat(4000)}b` }))).toBe(false);
  });
});

describe("fuzz", () => {
  const pieces = fc.oneof(
    fc.constantFrom(
      "name",
      "flags",
      ".",
      ",",
      "==",
      "!=",
      "~=",
      '"',
      "/",
      "|",
      "\\",
      "x",
      "7",
      " ",
      "\n",
      "[",
      "(",
    ),
    fc.string({ unit: "binary", maxLength: 3 }),
  );
  const input = fc.array(pieces, { maxLength: 12 }).map((parts) => parts.join(""));

  test("any text is a filter or a FilterSyntaxError", () => {
    fc.assert(
      fc.property(input, (text) => {
        try {
          for (const boat of fleet) parseFilter(text).match(adaptorOf(boat));
        } catch (error) {
          expect(error).toBeInstanceOf(FilterSyntaxError);
        }
      }),
      { numRuns: 3000 },
    );
  });

  test("a value quoted as JSON matches itself", () => {
    const value = fc
      .string({ unit: "grapheme" })
      .filter((text) => text !== "" && !text.includes("\ufffd") && text.isWellFormed());
    fc.assert(
      fc.property(value, (name) => {
        expect(parseFilter(`name==${JSON.stringify(name)}`).match(adaptorOf({ name }))).toBe(true);
      }),
    );
  });
});
