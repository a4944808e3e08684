/** Scripts for ctr that run on several daemons, whose outputs are compared. */
import { newNamespace } from "../containers.ts";
import { transcript } from "../ctr-output.ts";
import { containerdProgram, type Daemon, type Version } from "../daemons.ts";
import { type Finished, run } from "../processes.ts";

/**
 * What is run, what its output must show on every daemon, and which ctr alone has it. A line is ctr's arguments with `'…'` around what has
 * spaces, or after `$ ` a command of the shell in the daemon's folder, where `$CTR` is ctr. `<local>` is `--local` for 2.1; upper-case names
 * are filled in by {@link Walker}.
 */
export type Step = readonly [line: string, shows: RegExp, only?: Version];

export type Script = readonly Step[];

const ESCAPE = String.fromCharCode(27);

/** Arguments of a line, `'…'` being one. */
export function wordsOf(line: string): string[] {
  return [...line.matchAll(/'([^']*)'|(\S+)/g)].map(([, quoted, plain]) => quoted ?? plain ?? "");
}

export function stepsFor(script: Script, version: Version): Script {
  return script.filter(([, , only]) => only === undefined || only === version);
}

export interface Walker {
  readonly version: Version;
  readonly daemon: Daemon;
  readonly namespace: string;
  /** Values for upper-case names in lines. */
  readonly names: Readonly<Record<string, string>>;
}

export function walkerOf(version: Version, daemon: Daemon, names: Walker["names"]): Walker {
  return { version, daemon, namespace: newNamespace(), names };
}

/** Plays the steps of the walker's version. @throws with step and output where a pattern is not met */
export async function play(walker: Walker, script: Script): Promise<string[]> {
  const printed: string[] = [];
  for (const [line, shows] of stepsFor(script, walker.version)) {
    let text = normalise(await step(walker, line), walker);
    // ctr stops to read once the task has ended: on a busy machine one in some hundred loses all that it printed, whatever the daemon.
    // And a blob may be collected between its ingest and its label, by containerd too.
    if (!shows.test(text) && /\brun --rm |\bcontent ingest .*\bcontent label /.test(line))
      text = normalise(await step(walker, line), walker);
    if (!shows.test(text)) {
      const where = `ctr ${walker.version} ${line} on ${walker.daemon.kind}`;
      throw new Error(`${where} does not show ${shows}:\n${text}`);
    }
    printed.push(`$ ctr ${line}\n${comparable(line, text)}`);
  }
  return printed;
}

async function step(walker: Walker, line: string): Promise<Finished> {
  const { version, daemon, namespace } = walker;
  const program = await containerdProgram(version, "ctr");
  const given = fill(line, walker);
  const base = [program, "--address", daemon.socket, "-n", namespace];
  const env = { CTR: base.join(" "), NAMESPACE: namespace, TMPDIR: daemon.folder };
  if (given.startsWith("$ "))
    return run(["timeout", "60", "sh", "-c", given.slice(2)], { cwd: daemon.folder, env });
  return run([...base, ...wordsOf(given)], { cwd: daemon.folder, env });
}

let containers = 0;

function fill(line: string, { version, daemon, namespace, names }: Walker): string {
  // What fails may leave its snapshot: each container has a name of its own.
  const one = `one${++containers}`;
  const local = version === "2.1" ? "--local " : "";
  return line
    .replaceAll("<local> ", local)
    .replaceAll(
      /\b[A-Z][A-Z_]+\b/g,
      (name) => ({ FOLDER: daemon.folder, NAMESPACE: namespace, ONE: one, ...names })[name] ?? name,
    );
}

function normalise(result: Finished, { daemon, namespace, names }: Walker): string {
  let text = transcript(result, daemon);
  for (const [name, value] of Object.entries(names)) text = text.replaceAll(value, name);
  // What came before says how snapshots are numbered: only which is which is compared.
  const snapshots = new Map<string, number>();
  text = text.replaceAll(/(?<=\/snapshots\/)\d+(?=\/)/g, (number) => {
    if (!snapshots.has(number)) snapshots.set(number, snapshots.size + 1);
    return `<${snapshots.get(number)}>`;
  });
  return (
    text
      // A terminal's colours, and what of `script` is there by chance.
      .replaceAll(new RegExp(`\\0|\\^@|${ESCAPE}\\[\\d*m`, "g"), "")
      .replaceAll(/^ERRO[^\n]* resize pty [^\n]*\n/gm, "")
      .replaceAll(/^time=\S+ level=error msg="active check failed" error="context canceled"\n/gm, "")
      .replaceAll(/(?:\n+WARNING: (?:version|revision) mismatch)+\n*|\n+$/g, "\n")
      .replaceAll(/^done: [\d.]+\S+ *$/gm, "done")
      // The newest containerd's words.
      .replaceAll('failed to get sandbox controller for "": ', "")
      .replaceAll(/one\d+\b/g, "ONE")
      .replaceAll(/containerd-mount\d+/g, "<mount>")
      .replaceAll(namespace, "<namespace>")
      .replaceAll(/time="[^"]*"/g, "time")
      .replaceAll(/\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z| \+0000 UTC)?/g, "<time>")
      .replaceAll(/\b\d{1,10}-[\w-]{4}(?=\s|$)/gm, "<unique>")
      .replaceAll(/"(pid|uuid)": [^,\n]+/g, '"$1": <own>')
  );
}

/** `saved` is the last of it, which ctr may not have shown when it is told that the transfer is over. */
const PROGRESS =
  /^.*(?:\|[-+]+\||already exists|(?:fetching image|pushing|pushed) content|elapsed|image\.index\.v1\+json| saved\b).*\n/gm;

/** Of progress what stays is compared; how a transfer fails is told by the daemon, in words of its own; rows of labels have a Go map's order. */
function comparable(line: string, text: string): string {
  if (/ (?:pull|push|fetch|push-object) /.test(` ${line} `)) {
    return /^code 0/.test(text) ? text.replaceAll(PROGRESS, "") : (text.split("\n", 1)[0] ?? "");
  }
  return text.replaceAll(/(?:^[ │]*"containerd\.io\/gc\.ref.*\n)+/gm, (rows) =>
    rows.split("\n").sort().join("\n"),
  );
}
