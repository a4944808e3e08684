/** What `ctr --help` names, to the last command and flag. */
import { containerdProgram, type Version } from "../daemons.ts";
import { output } from "../processes.ts";

export interface Command {
  /** `images pull`; empty for ctr itself. */
  readonly name: string;
  /** Of every word of the name, all its spellings: `[["images","image","i"], ["pull"]]`. */
  readonly words: readonly (readonly string[])[];
  /** Each with its spellings, without `--help`. */
  readonly flags: readonly (readonly string[])[];
  /** Names of the commands below it. */
  readonly below: readonly string[];
}

/** Asks ctr itself, command by command. */
export async function commandsOf(version: Version): Promise<readonly Command[]> {
  const program = await containerdProgram(version, "ctr");
  const ask = async (words: readonly (readonly string[])[]): Promise<Command[]> => {
    const path = words.map(([first = ""]) => first);
    const text = await output([program, ...path, "--help"]);
    const below = rows(text, "COMMANDS").filter(([first]) => first !== "help");
    const flags = rows(text, "(?:GLOBAL )?OPTIONS").filter((names) => !names.includes("--help"));
    const own = { name: path.join(" "), words, flags, below: below.map(([first = ""]) => first) };
    const found = await Promise.all(below.map((names) => ask([...words, names])));
    return [own, ...found.flat()];
  };
  return ask([]);
}

/** The names in the first column of a section: `list, ls`, `--quiet, -q`, `--label value [ --label value ]`. */
function rows(text: string, section: string): string[][] {
  const [, body = ""] = new RegExp(`^${section}:\n((?: .*\n|\n(?= ))*)`, "m").exec(`${text}\n`) ?? [];
  return body.split("\n").flatMap((line) => {
    const names = /^ {3,5}(-{0,2}[a-z][\w-]*(?:, -{0,2}[a-z][\w-]*| \S+(?=, -))*)/i.exec(line)?.[1];
    return names === undefined ? [] : [names.split(", ").map((name) => name.split(" ")[0] ?? "")];
  });
}
