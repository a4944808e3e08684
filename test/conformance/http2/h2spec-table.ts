/** Reads `h2spec.md`. */
import { readFileSync } from "node:fs";
import { join } from "node:path";

export interface TableRow {
  readonly title: string;
  /** Of ours, in this folder. */
  readonly file: string;
  readonly group: string;
  readonly test: string;
}

/** Rows by h2spec's case id. @throws Error for a row that is none, and for an id that stands twice */
export function h2specTable(): Map<string, TableRow> {
  const rows = new Map<string, TableRow>();
  const text = readFileSync(join(import.meta.dir, "h2spec.md"), "utf8");
  for (const line of text.split("\n").filter((one) => /^\| (?!case |---)/.test(one))) {
    const row = /^\| (\S+) \| (.+) \| `([\w.-]+\.test\.ts) > (.+?) > (.+)` \|$/.exec(line);
    if (row === null) throw new Error(`h2spec.md: ${line}`);
    const [, id = "", title = "", file = "", group = "", test = ""] = row;
    if (rows.has(id)) throw new Error(`h2spec.md: ${id} stands twice`);
    rows.set(id, { title, file, group, test });
  }
  return rows;
}
