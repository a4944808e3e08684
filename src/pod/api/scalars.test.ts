import { expect, test } from "bun:test";
import fc from "fast-check";
import { readDocuments, writeDocument } from "./documents.ts";

const SIGNS = [..."0123456789abcdefnNoOyYxX_.+-~:<&*!|>'\"#%@`{}[],? \n"];
const WORDS = [
  "yes",
  "NO",
  "off",
  "null",
  "0o17",
  "0x1F",
  ".inf",
  "1_000",
  "0O7",
  "0X8",
  "0B1",
  "-_3",
  "7e_9",
  "2e800",
  "12:30",
  "2001-01-01",
  "1e3",
  "=",
  "<<",
];

test("what is written is read as the same, whatever it looks like", () => {
  const text = fc.oneof(
    fc.constantFrom(...WORDS),
    fc.string({ unit: fc.constantFrom(...SIGNS), maxLength: 8 }),
  );
  const value = fc.dictionary(text, fc.array(text, { maxLength: 3 }), { maxKeys: 3, noNullPrototype: true });
  fc.assert(
    fc.property(value, (written) => {
      const [document] = readDocuments(writeDocument(written));
      expect(document?.value).toEqual(written);
    }),
    { numRuns: 2000 },
  );
});

// What `sigs.k8s.io/yaml` 1.6 made of them when it was asked.
test.each<[string, unknown]>([
  ["2e800", "2e800"],
  ["-_3", -3],
  ["7e_9", 7e9],
  [".5_0", 0.5],
  [".5_", ".5_"],
  [".5e1", 5],
  ["08", 8],
  ["-017", -15],
  ["0O17", 15],
  ["0777777777777777777777777", 7.777777777777778e23],
  ["0xFFFFFFFFFFFFFFFFFFFF", "0xFFFFFFFFFFFFFFFFFFFF"],
  ["18446744073709551615", 2 ** 64],
  ["99999999999999999999", 1e20],
  ["0b2", "0b2"],
  ["_1", "_1"],
  ["nULL", "nULL"],
  ["Y", true],
  ["tRue", "tRue"],
])("%s is read as Kubernetes reads it", (text, value) => {
  expect(readDocuments(`a: ${text}`)[0]?.value).toEqual({ a: value });
});
