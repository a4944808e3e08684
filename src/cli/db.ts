/** `bunkerd db`: tools for database files. They want the file's lock, so not a running daemon's. */
import { Command } from "commander";
import { backup } from "../bolt/backup.ts";
import { compact } from "../bolt/compact.ts";
import { Db } from "../bolt/db.ts";
import { listPages } from "../bolt/pages.ts";

const print = (line: string): boolean => process.stdout.write(`${line}\n`);

/** Problems that are printed; a broken freelist can make as many as there are pages. */
const MAX_PROBLEMS = 1000;

/** The `db` command with its subcommands. Failures are thrown; `check` sets exit code 1 when it finds problems. */
export function dbCommand(): Command {
  const db = new Command("db").description(
    "check, list, compact or copy a database file (meta.db, a snapshotter's metadata.db)",
  );
  db.command("check")
    .description("tell every inconsistency of FILE; exit code 1 when there is one")
    .argument("<FILE>")
    .action((path: string) => withDb(path, (file) => printCheck(path, file)));
  db.command("pages")
    .description("list the pages of FILE")
    .argument("<FILE>")
    .action((path: string) => withDb(path, printPages));
  db.command("compact")
    .description("write FILE anew to DEST without its free space")
    .argument("<FILE>")
    .argument("<DEST>")
    .option("--sync-freelist", "store the freelist in DEST, as snapshotters' databases have it")
    .action((path: string, destination: string, options: { syncFreelist?: boolean }) =>
      withDb(path, async (file) => {
        const bytes = await compact(file, destination, { syncFreelist: options.syncFreelist ?? false });
        print(`${path}: ${file.view((tx) => tx.sizeBytes)} bytes, ${destination}: ${bytes} bytes`);
      }),
    );
  db.command("backup")
    .description("copy the state of FILE to DEST")
    .argument("<FILE>")
    .argument("<DEST>")
    .action((path: string, destination: string) =>
      withDb(path, async (file) => void print(`${destination}: ${await backup(file, destination)} bytes`)),
    );
  return db;
}

async function withDb(path: string, run: (db: Db) => void | Promise<void>): Promise<void> {
  const db = Db.open(path, { readOnly: true });
  try {
    await run(db);
  } catch (error) {
    // `bunkerd db pages FILE | head`: the reader has seen enough.
    if ((error as NodeJS.ErrnoException).code !== "EPIPE") throw error;
  } finally {
    await db.close();
  }
}

function printCheck(path: string, db: Db): void {
  const problems = db.check();
  for (const problem of problems.slice(0, MAX_PROBLEMS)) print(problem);
  if (problems.length === 0) {
    print(`${path}: OK`);
  } else {
    print(`${path}: ${problems.length} problems`);
    process.exitCode = 1;
  }
}

function printPages(db: Db): void {
  print("ID       TYPE       ITEMS  OVRFLW");
  db.view((tx) => {
    for (const { id, type, count, overflow } of listPages(tx.snapshot)) {
      const items = type === "free" ? "" : String(count);
      print(
        `${String(id).padEnd(8)} ${type.padEnd(10)} ${items.padEnd(6)} ${overflow > 0 ? overflow : ""}`.trimEnd(),
      );
    }
  });
}
