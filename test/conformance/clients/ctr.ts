/** ctr of both releases: what of containerd's own services has each kind of RPC, with files of each size. */

import { createHash } from "node:crypto";
import { join } from "node:path";
import { ctr } from "../../support/commands.ts";
import type { Daemon, Version } from "../../support/daemons.ts";
import { containerdProgram } from "../../support/daemons.ts";
import { type Finished, run } from "../../support/processes.ts";
import type { Cell } from "./calls.ts";
import { MAX_BYTES, OVER_BYTES, SIZES } from "./sizes.ts";

/** Of a spec whose container, with all else that is in its message, is just under the limit. */
export const SPEC_SIZES: readonly number[] = [0, (16 << 10) - 1, 1 << 20, MAX_BYTES - 2048];

const refusal = ({ code, stderr }: Finished): string =>
  code === 0
    ? "answered"
    : (/code = ResourceExhausted.*|ResourceExhausted.*|grpc: .*/i.exec(stderr)?.[0] ?? stderr);

/** A container's spec goes up and comes down in one message. */
export async function unaryCells(version: Version, daemon: Daemon): Promise<Cell[]> {
  const cells: Cell[] = [];
  const create = async (id: string, bytes: number): Promise<Finished> => {
    const config = join(daemon.folder, "spec.json");
    await Bun.write(config, JSON.stringify({ ociVersion: "1.0.2", hostname: "x".repeat(bytes) }));
    return ctr(version, daemon, "-n", version, "containers", "create", "--config", config, id);
  };
  for (const bytes of SPEC_SIZES) {
    const created = await create(`c${bytes}`, bytes);
    const { stdout } = await ctr(version, daemon, "-n", version, "containers", "info", "--spec", `c${bytes}`);
    const same = created.code === 0 && (/"hostname": "(x*)"/.exec(stdout)?.[1]?.length ?? 0) === bytes;
    cells.push(["unary", bytes, "both ways", same ? "ok" : `${created.stderr} ${stdout.slice(0, 200)}`]);
  }
  cells.push(["unary", OVER_BYTES, "up", refusal(await create("over", OVER_BYTES))]);
  return cells;
}

/** Content goes up in a stream both ways and comes down in one. ctr cuts it into messages as it likes. */
export async function contentCells(version: Version, daemon: Daemon): Promise<Cell[]> {
  const program = await containerdProgram(version, "ctr");
  const cells: Cell[] = [];
  for (const bytes of [...SIZES, OVER_BYTES]) {
    const content = Buffer.alloc(bytes, version);
    const command = [program, "--address", daemon.socket, "-n", version, "content"];
    const ingested = await run([...command, "ingest", `in-${bytes}`], { stdin: content });
    cells.push(["bidi", bytes, "up", ingested.code === 0 ? "ok" : ingested.stderr]);
    const digest = `sha256:${createHash("sha256").update(content).digest("hex")}`;
    const got = await run([...command, "get", digest]);
    cells.push(["server stream", bytes, "down", got.stdout === content.toString() ? "ok" : got.stderr]);
  }
  return cells;
}
