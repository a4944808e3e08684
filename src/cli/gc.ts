/** `bunkerd gc`: what nothing keeps, and what keeps the rest. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { Command } from "commander";
import { GarbageCollection } from "#gen/bunkerd/gc/v1/gc_pb.ts";
import { Db } from "../bolt/db.ts";
import { Client } from "../client/client.ts";
import { fromConnectError } from "../client/status.ts";
import { loadConfig } from "../config/load.ts";
import { systemClock } from "../lib/clock.ts";
import { silentLogger } from "../lib/log.ts";
import { explainObject, findObjects, type MarkDependencies, planGarbage } from "../metadata/gc-plan.ts";
import type { CollectedObject, KeptLink } from "../model/collection.ts";
import { BunkerdError, fail, quote } from "../model/errors.ts";
import { DEFAULT_NAMESPACE } from "../model/namespaces.ts";
import { type GlobalOptions, loadOptionsOf } from "./options.ts";

const KINDS = ["image", "content", "snapshot", "lease", "ingest", "container", "sandbox"];

const print = (line: string): boolean => process.stdout.write(`${line}\n`);

export function gcCommand(): Command {
  const gc = new Command("gc")
    .description(
      "remove what no image, container, lease or label keeps, as the daemon does by itself, and print it",
    )
    .option("--dry-run", "only tell what would go; if no daemon runs, by its database")
    .action(async (_options: object, command: Command) => {
      const options = command.optsWithGlobals<GlobalOptions & { dryRun?: boolean }>();
      const objects = await collect(options, options.dryRun ?? false);
      for (const { kind, namespace, key } of objects) print(`${namespace} ${kind} ${key}`);
      if (objects.length === 0) process.stderr.write("nothing to remove\n");
    });
  gc.command("explain")
    .description("tell what keeps OBJECT: a name, digest or id, or KIND/NAME, such as snapshot/overlayfs/KEY")
    .argument("<OBJECT>")
    .option("-n, --namespace <namespace>", "namespace of the object", DEFAULT_NAMESPACE)
    .action(async (name: string, _options: object, command: Command) => {
      const options = command.optsWithGlobals<GlobalOptions & { namespace: string }>();
      for (const explanation of await explain(options, name)) printExplanation(explanation);
    });
  return gc;
}

interface Explanation {
  readonly object: CollectedObject;
  /** Empty if nothing keeps it. */
  readonly path: readonly KeptLink[];
}

async function collect(options: GlobalOptions, dryRun: boolean): Promise<readonly CollectedObject[]> {
  const asked = await ask(options, async (client) => {
    const objects: CollectedObject[] = [];
    for await (const message of client.service(GarbageCollection).collect({ dryRun }))
      objects.push(...message.objects);
    return objects;
  });
  if (asked !== undefined) return asked;
  if (!dryRun)
    throw fail("Unavailable", "gc: no daemon answers, and only it can remove; --dry-run reads its database");
  return await readDatabase(options, planGarbage);
}

async function explain(
  options: GlobalOptions & { namespace: string },
  name: string,
): Promise<readonly Explanation[]> {
  const { namespace } = options;
  const kind = KINDS.find((each) => name.startsWith(`${each}/`)) ?? "";
  const key = kind === "" ? name : name.slice(kind.length + 1);
  const asked = await ask(options, async (client) => {
    const { explanations } = await client.service(GarbageCollection).explain({ namespace, kind, key });
    return explanations.map(({ object, path }) => ({
      object: given(object),
      path: path.map((link) => ({ object: given(link.object), reason: link.reason })),
    }));
  });
  return (
    asked ?? readDatabase(options, (dependencies) => explainOffline(dependencies, { kind, namespace, key }))
  );
}

async function explainOffline(
  dependencies: MarkDependencies,
  { kind, namespace, key }: CollectedObject,
): Promise<readonly Explanation[]> {
  const found = findObjects(dependencies.db, namespace, key).filter(
    (each) => kind === "" || each.kind === kind,
  );
  if (found.length === 0) {
    throw fail("NotFound", `${kind === "" ? "object" : kind} ${quote(key)} in namespace ${quote(namespace)}`);
  }
  const explanations: Explanation[] = [];
  for (const object of found)
    explanations.push({ object, path: (await explainObject(dependencies, object)) ?? [] });
  return explanations;
}

function given(object: CollectedObject | undefined): CollectedObject {
  if (object === undefined) throw new Error("the daemon's answer lacks an object");
  return object;
}

/** Undefined if nobody listens on the address. @throws what the daemon answers */
async function ask<T>(options: GlobalOptions, call: (client: Client) => Promise<T>): Promise<T | undefined> {
  const { address } = loadConfig(loadOptionsOf(options)).config.grpc;
  const client = new Client(address);
  try {
    return await call(client);
  } catch (error) {
    const failure = fromConnectError(error, address);
    if (failure instanceof BunkerdError && failure.code === "Unavailable") return undefined;
    throw failure;
  } finally {
    client.close();
  }
}

/** Reads the database of a daemon that does not run. @throws Unavailable naming the process that has it open, NotFound */
async function readDatabase<T>(
  options: GlobalOptions,
  read: (dependencies: MarkDependencies) => Promise<T>,
): Promise<T> {
  const path = join(loadConfig(loadOptionsOf(options)).config.root, "io.containerd.metadata.v1.bolt/meta.db");
  if (!existsSync(path)) throw fail("NotFound", `no daemon answers, and database ${quote(path)}`);
  const db = Db.open(path, { readOnly: true });
  try {
    const blobs = { ingestInUse: () => false };
    return await read({ db, blobs, clock: systemClock(), logger: silentLogger, collectibles: new Map() });
  } finally {
    await db.close();
  }
}

function printExplanation({ object, path }: Explanation): void {
  if (path.length === 0) {
    print(`${object.kind} ${object.key}: nothing keeps it, the next collection removes it`);
    return;
  }
  print(`${object.kind} ${object.key} is kept:`);
  path.forEach(({ object: step, reason }, index) => {
    const name = `${step.kind} ${step.key}`;
    print(index === 0 ? `  ${name} is a root (${reason})` : `  refers by ${reason} to ${name}`);
  });
}
