/** crictl, called again and again on one daemon, and what it printed, without what differs from run to run. */
import { join } from "node:path";
import type { Daemon } from "../../support/daemons.ts";
import { linesOf, run, start } from "../../support/processes.ts";

/** One call: the command line and all that came of it, one line each. */
export interface Step {
  readonly command: string;
  readonly lines: readonly string[];
}

export interface CallOptions {
  /** Standard input, until its end; none: /dev/null. */
  readonly stdin?: string;
  /** On a terminal that script(1) makes; what is printed is what the terminal shows. */
  readonly terminal?: boolean;
  /** Lines in an order of the daemon's own are sorted. */
  readonly sorted?: boolean;
  /** Numbers are what the machine does just now. */
  readonly measured?: boolean;
}

/** A call that goes on until its end is asked for. */
export interface Following {
  /** Resolves once a line holds the text. @throws with the lines if none does for 30 seconds */
  line(text: string): Promise<void>;
  /** Ends it, if it has not ended, and records what it printed. */
  end(): Promise<void>;
}

const LINE_TIMEOUT_MS = 30_000;

export class CrictlSession {
  readonly daemon: Daemon;
  readonly steps: Step[] = [];
  readonly #program: string;
  readonly #names = new Map<string, string>();
  readonly #config: string;

  constructor(program: string, daemon: Daemon) {
    this.#program = program;
    this.daemon = daemon;
    this.#config = join(daemon.folder, "crictl.yaml");
  }

  /** Calls and records. Returns what stood on standard output, trimmed: most often an id. */
  async call(args: readonly string[], options: CallOptions = {}): Promise<string> {
    const { code, stdout, stderr } = await run(this.#command(args, options), {
      env: this.#environment(),
      cwd: this.daemon.folder,
      ...(options.stdin === undefined ? {} : { stdin: options.stdin }),
    });
    this.#record(args, `${stdout}${stderr}code ${code}`, options);
    return stdout.trim();
  }

  /** The same for a call that answers an id, which is called by a name from then on. */
  async callForId(name: string, args: readonly string[], options: CallOptions = {}): Promise<string> {
    const command = this.#command(args, options);
    const { code, stdout, stderr } = await run(command, {
      env: this.#environment(),
      cwd: this.daemon.folder,
    });
    const id = stdout.trim().split("\n").at(-1) ?? "";
    if (/^[0-9a-f]{64}$/.test(id)) this.#names.set(id, name);
    this.#record(args, `${stdout}${stderr}code ${code}`, options);
    return id;
  }

  /** Starts a call that follows something. */
  follow(args: readonly string[]): Following {
    const command = this.#command(args, {});
    const options = { env: this.#environment(), cwd: this.daemon.folder, stdin: "ignore" } as const;
    const child = start(command, { ...options, stdout: "pipe", stderr: "pipe" });
    const out: string[] = [];
    const err: string[] = [];
    const read = async (stream: ReadableStream<Uint8Array>, lines: string[]): Promise<void> => {
      for await (const line of linesOf(stream)) lines.push(line);
    };
    const all = Promise.all([read(child.stdout, out), read(child.stderr, err)]);
    return {
      line: async (text) => {
        const deadline = performance.now() + LINE_TIMEOUT_MS;
        while (![...out, ...err].some((line) => line.includes(text))) {
          if (performance.now() > deadline)
            throw new Error(`crictl ${args.join(" ")}: ${[...out, ...err].join("\n")}`);
          await Bun.sleep(20);
        }
      },
      end: async () => {
        child.kill("SIGINT");
        await child.exited;
        await all;
        this.#record(args, [...out, ...err].join("\n"), {});
      },
    };
  }

  /** Records what another program saw. */
  note(title: string, text: string): void {
    this.#record([title], text, {});
  }

  #environment(): Record<string, string> {
    return { ...(process.env as Record<string, string>), CRI_CONFIG_FILE: this.#config };
  }

  #command(args: readonly string[], { terminal = false }: CallOptions): string[] {
    if (!terminal) return [this.#program, ...args];
    const line = [this.#program, ...args].map((word) => `'${word}'`).join(" ");
    return ["script", "--quiet", "--return", "--command", line, "/dev/null"];
  }

  #record(args: readonly string[], text: string, { sorted = false, measured = false }: CallOptions): void {
    const plain = this.#plain(text);
    const lines = (measured ? withoutNumbers(plain) : plain).split("\n");
    if (sorted) lines.sort();
    this.steps.push({ command: this.#plain(args.join(" ")), lines });
  }

  #plain(text: string): string {
    let plain = text
      .replaceAll(this.daemon.folder, "<folder>")
      .replaceAll(/\/tmp\/bkt-\w+\/(?:bunkerd|containerd-2\.1)\b/g, "<node>");
    for (const [id, name] of this.#names) {
      for (const part of [id, id.slice(0, 13), id.slice(0, 8)]) plain = plain.replaceAll(part, `<${name}>`);
    }
    return (
      plain
        .replaceAll(/time="[^"]*" /g, "")
        // What a side of crictl's own says when the other was quicker to end.
        .replaceAll(/^E\d{4} .*UnhandledError"\r?\n/gm, "")
        .replaceAll(/^E\d{4} [\d:.]+ +\d+ (\w+\.go):\d+]/gm, "E <time> $1]")
        .replaceAll(/\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?(?:Z| ?[+-]\d\d:?\d\d(?: UTC)?)/g, "<time>")
        .replaceAll(/(?:Less than a second|About an? \w+|\d+ \w+) ago/g, "<age>")
        .replaceAll(/\b1\d{18}\b/g, "<ns>")
        .replaceAll(/^(RuntimeVersion:).*/gm, "$1 <version>")
        .replaceAll(/("?pid"?:) ?\d+/gi, "$1 <pid>")
        .replaceAll(/\/proc\/\d+\//g, "/proc/<pid>/")
        .replaceAll(/cni-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}/g, "<netns>")
        .replaceAll(/\b(?:[0-9a-f]{2}:){5}[0-9a-f]{2}\b/g, "<mac>")
        .replaceAll(/\bveth[0-9a-f]{8}\b/g, "<veth>")
        .replaceAll(/127\.0\.0\.1:\d{5}\b/g, "127.0.0.1:<port>")
        .replaceAll(/\b[0-9a-f]{64}\b(?<!sha256:.{64})/g, "<id>")
        .replaceAll(/(?<=\S)[\t ]+/g, " ")
        // script(1) ends its terminal's input with a NUL, which a command may be quick enough to echo.
        .replaceAll(/\r|\^@/g, "")
    );
  }
}

/** Amounts in JSON, YAML and tables. */
function withoutNumbers(text: string): string {
  return text.replaceAll(/(value"?: )"?\d+"?/g, "$1<n>").replaceAll(/\b\d+\.\d\d\b|\b[\d.]+[kM]?B\b/g, "<n>");
}
