/** `ctr` of both Debian releases, `curl` and `buf curl`, pointed at a daemon's socket. */
import { join } from "node:path";
import { containerdProgram, type Daemon, type Version } from "./daemons.ts";
import { type Finished, run } from "./processes.ts";

/** The versions of ctr that must work: Debian 12's and sid's. */
export const CTR_VERSIONS: readonly Version[] = ["1.6", "2.1"];

/** What is asked of a daemon to be called. */
type Reached = Pick<Daemon, "socket" | "folder">;

/** Its own folders, which it leaves where it is killed, or its task removed by others, are the daemon's. */
export async function ctrCommand(
  version: Version,
  daemon: Reached,
  ...args: readonly string[]
): Promise<{ readonly command: readonly string[]; readonly env: Record<string, string> }> {
  const hasFifos = (word: string, at: number): boolean =>
    word === "run" || (/^(?:start|exec)$/.test(word) && /^t(?:asks?)?$/.test(args[at - 1] ?? ""));
  const after = args.findIndex(hasFifos) + 1;
  const fifos = after === 0 ? [] : ["--fifo-dir", join(daemon.folder, "fifo")];
  const words = [...args.slice(0, after), ...fifos, ...args.slice(after)];
  const program = await containerdProgram(version, "ctr");
  return { command: [program, "--address", daemon.socket, ...words], env: { TMPDIR: daemon.folder } };
}

export async function ctr(version: Version, daemon: Reached, ...args: readonly string[]): Promise<Finished> {
  const { command, env } = await ctrCommand(version, daemon, ...args);
  return run(command, { cwd: daemon.folder, env });
}

export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly body: string;
}

/** `curl` over the daemon's socket; `args` are curl's own. @throws if curl itself fails */
export async function curl(daemon: Daemon, path: string, ...args: readonly string[]): Promise<Answer> {
  const result = await curlRaw(daemon, path, ...args);
  if (result.code !== 0) throw new Error(`curl ${path} exited ${result.code}: ${result.stderr}`);
  return parseAnswer(result.stdout);
}

export function curlRaw(daemon: Daemon, path: string, ...args: readonly string[]): Promise<Finished> {
  const url = `http://localhost${path}`;
  return run(["curl", "-sS", "--include", "--max-time", "60", "--unix-socket", daemon.socket, ...args, url]);
}

function parseAnswer(text: string): Answer {
  const [, head = "", body = ""] = /^([\s\S]*?)\r\n\r\n([\s\S]*)$/.exec(text) ?? [];
  if (/^HTTP\/\S+ 1\d\d/.test(head)) return parseAnswer(body);
  const [first = "", ...lines] = head.split("\r\n");
  const headers = new Headers();
  for (const line of lines) {
    const colon = line.indexOf(":");
    headers.append(line.slice(0, colon), line.slice(colon + 1).trim());
  }
  return { status: Number(/^HTTP\/\S+ (\d+)/.exec(first)?.[1]), headers, body };
}

/** Calls `<service>/<method>` as Connect JSON, by POST. */
export function callJson(
  daemon: Daemon,
  method: string,
  request: unknown,
  options: { namespace?: string; http2?: boolean; headers?: Readonly<Record<string, string>> } = {},
): Promise<Answer> {
  const headers = { "content-type": "application/json", ...options.headers };
  if (options.namespace !== undefined) Object.assign(headers, { "containerd-namespace": options.namespace });
  return curl(
    daemon,
    `/${method}`,
    ...(options.http2 === true ? ["--http2-prior-knowledge"] : ["--http1.1"]),
    ...Object.entries(headers).flatMap(([name, value]) => ["-H", `${name}: ${value}`]),
    "-d",
    JSON.stringify(request),
  );
}
