import { expect, test } from "bun:test";
import fc from "fast-check";
import { dump } from "js-yaml";
import { readDocuments } from "./documents.ts";

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
      const [document] = readDocuments(dump(written, { lineWidth: -1, noRefs: true }));
      expect(document?.value).toEqual(written);
    }),
    { numRuns: 2000 },
  );
});
