/** A database file's consistency, by `bunkerd db check`, and by bbolt itself where BBOLT_CHECK names a program around its `Tx.Check`. */
import { bunkerdCommand } from "./daemons.ts";
import { type Finished, run } from "./processes.ts";

/** The first check that failed, or the last. */
export async function checkDatabase(file: string): Promise<Finished> {
  const ours = await run([...bunkerdCommand(), "db", "check", file]);
  const bbolt = process.env["BBOLT_CHECK"];
  return ours.code !== 0 || bbolt === undefined ? ours : run([bbolt, file]);
}
