/** What a bench measures, and its table: ours beside containerd's, the ratio beside the target. */
import { cpus, totalmem } from "node:os";
import type { DaemonKind } from "../test/support/daemons.ts";
import { median } from "./measurements.ts";

export type Side = "ours" | "containerd";
type Samples = Record<Side, number[]>;

export interface Figure {
  readonly name: string;
  readonly unit: string;
  /** What ours/containerd must be. */
  readonly target: { readonly atMost: number } | { readonly atLeast: number } | undefined;
  readonly samples: Samples;
}

export const SIDES: readonly (readonly [Side, DaemonKind])[] = [
  ["ours", "bunkerd"],
  ["containerd", "containerd-2.1"],
];

/** The sides in their order of a round: who is first changes, for what one leaves to be done meets the next. */
export function sidesOf(round: number): typeof SIDES {
  return round % 2 === 0 ? SIDES : SIDES.toReversed();
}

export const figures: Figure[] = [];

export function figure(name: string, unit: string, target: Figure["target"]): Figure {
  const made = { name, unit, target, samples: { ours: [], containerd: [] } };
  figures.push(made);
  return made;
}

/** To stderr: a bench takes minutes. */
export function progress(text: string): void {
  process.stderr.write(`${text}\n`);
}

interface Row {
  readonly name: string;
  readonly unit: string;
  readonly ours: number;
  readonly containerd: number;
  readonly ratio: number;
  readonly target: string;
  readonly met: boolean | undefined;
}

function rowOf({ name, unit, target, samples }: Figure): Row {
  const ours = median(samples.ours);
  const containerd = median(samples.containerd);
  const ratio = ours / containerd;
  if (target === undefined) return { name, unit, ours, containerd, ratio, target: "", met: undefined };
  return "atMost" in target
    ? { name, unit, ours, containerd, ratio, target: `<= ${target.atMost}x`, met: ratio <= target.atMost }
    : { name, unit, ours, containerd, ratio, target: `>= ${target.atLeast}x`, met: ratio >= target.atLeast };
}

function printTable(rows: readonly Row[]): void {
  const digits = (value: number): string => value.toFixed(value >= 100 ? 0 : value >= 10 ? 1 : 2);
  const verdict = (met: boolean | undefined): string => (met === undefined ? "" : met ? "met" : "MISSED");
  const lines = [
    ["", "unit", "ours", "containerd", "ours/containerd", "target", "verdict"],
    ...rows.map((row) => [
      ...[row.name, row.unit, digits(row.ours), digits(row.containerd)],
      ...[`${row.ratio.toFixed(2)}x`, row.target, verdict(row.met)],
    ]),
  ];
  const widths =
    lines[0]?.map((_, column) => Math.max(...lines.map((line) => line[column]?.length ?? 0))) ?? [];
  for (const line of lines) {
    process.stdout.write(`| ${line.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join(" | ")} |\n`);
    if (line === lines[0])
      process.stdout.write(`|${widths.map((width) => "-".repeat(width + 2)).join("|")}|\n`);
  }
}

/** All figures so far, with the machine's name above them. */
export function printFigures(rounds: number): { readonly machine: string; readonly rows: readonly Row[] } {
  const rows = figures.map(rowOf);
  const machine = `${cpus().length} x ${cpus()[0]?.model}, ${Math.round(totalmem() / 2 ** 30)} GiB`;
  process.stdout.write(`\n${machine}; median of ${rounds}\n\n`);
  printTable(rows);
  return { machine, rows };
}
