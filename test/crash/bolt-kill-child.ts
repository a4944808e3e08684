/**
 * Writes to the database named by its argument until it is killed: pairs of keys, each pair by one function. A line on stdout
 * for each pair that was acknowledged. Every fourth function throws. The third argument adds a value of so many bytes
 * to each pair, so that the file grows.
 */
import { writeSync } from "node:fs";
import { Db } from "../../src/bolt/db.ts";

const WRITERS = 8;
const [path = "", firstText = "0", fillerBytes = "0"] = process.argv.slice(2);
const db = Db.open(path, { syncFreelist: Number(firstText) % 2 === 0 });
let next = Number(firstText);

async function write(): Promise<never> {
  for (;;) {
    const n = next++;
    const update = db.update((tx) => {
      const bucket = tx.createBucketIfNotExists("pairs");
      const value = new Uint8Array(new Float64Array(1 + (n % 300)).fill(n).buffer);
      bucket.put(`left-${n}`, value);
      if (fillerBytes !== "0") bucket.put(`filler-${n}`, new Uint8Array(Number(fillerBytes)));
      bucket.createBucketIfNotExists(`nested-${n % 7}`).put(`right-${n}`, value);
      if (n > 500) bucket.delete(`left-${n - 500}`);
      if (n > 500) bucket.createBucketIfNotExists(`nested-${(n - 500) % 7}`).delete(`right-${n - 500}`);
      if (n % 4 === 3) throw new Error("undo me");
    });
    await update.then(
      () => writeSync(1, `${n}\n`),
      () => undefined,
    );
  }
}

await Promise.all(Array.from({ length: WRITERS }, write));
