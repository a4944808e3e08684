/** A bunkerd with a command line and a log of its own, for tests of what it does with them. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { Client } from "../../src/client/client.ts";
import { bunkerdCommand } from "./daemons.ts";
import { linesOf, removeFolder, start, temporaryFolder } from "./processes.ts";

const folders: string[] = [];
const started: Bunkerd[] = [];

/** To be called after each test: ends what it has started. */
export async function endBunkerds(): Promise<void> {
  for (const daemon of started.splice(0)) await daemon.kill();
  for (const folder of folders.splice(0)) removeFolder(folder);
}

export function newFolder(): string {
  const folder = temporaryFolder();
  folders.push(folder);
  return folder;
}

/** A bunkerd whose log is read as it comes. */
export class Bunkerd {
  readonly folder: string;
  readonly lines: string[] = [];
  readonly #child: ReturnType<typeof spawn>;
  readonly #ended: Promise<void>;
  #waiting: (() => void)[] = [];
  #over = false;

  constructor(folder: string, args: readonly string[], env: Readonly<Record<string, string>> = {}) {
    this.folder = folder;
    this.#child = spawn(folder, args, env);
    this.#ended = this.#read();
    started.push(this);
  }

  get pid(): number {
    return this.#child.pid;
  }

  get socket(): string {
    return join(this.folder, "d.sock");
  }

  /** The first line from `from` on that matches. @throws with the log if the daemon ends before */
  async line(pattern: RegExp, from = 0): Promise<string> {
    for (;;) {
      const found = this.lines.slice(from).find((line) => pattern.test(line));
      if (found !== undefined) return found;
      if (this.#over) throw new Error(`no line ${pattern} in:\n${this.lines.join("\n")}`);
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
  }

  async ready(): Promise<this> {
    await this.line(/successfully booted/);
    return this;
  }

  signal(name: NodeJS.Signals): void {
    this.#child.kill(name);
  }

  async end(name: NodeJS.Signals = "SIGTERM"): Promise<number> {
    this.#child.kill(name);
    return await this.exit();
  }

  /** The exit code, once the log is read to its end. */
  async exit(): Promise<number> {
    await this.#ended;
    return await this.#child.exited;
  }

  async kill(): Promise<void> {
    this.#child.kill("SIGKILL");
    await this.exit();
  }

  async #read(): Promise<void> {
    for await (const line of linesOf(this.#child.stderr)) {
      this.lines.push(line);
      this.#wake();
    }
    this.#over = true;
    this.#wake();
  }

  #wake(): void {
    for (const resolve of this.#waiting.splice(0)) resolve();
  }
}

function spawn(folder: string, args: readonly string[], env: Readonly<Record<string, string>>) {
  return start([...bunkerdCommand(), ...args], {
    cwd: folder,
    env: { ...process.env, ...env },
    stdin: "ignore",
    stdout: "ignore",
    stderr: "pipe",
  });
}

/** Arguments for a daemon that lives in `folder`, and its config file with these lines. */
export function argsFor(folder: string, config = "version = 2", root = join(folder, "root")): string[] {
  const file = join(folder, "config.toml");
  writeFileSync(file, `${config}\n`);
  return [
    "--config",
    file,
    "--root",
    root,
    "--state",
    join(folder, "state"),
    "--address",
    join(folder, "d.sock"),
  ];
}

export function launch(
  config?: string,
  env?: Readonly<Record<string, string>>,
  more: readonly string[] = [],
): Bunkerd {
  const folder = newFolder();
  return new Bunkerd(folder, [...argsFor(folder, config), ...more], env);
}

export async function withClient<T>(daemon: Bunkerd, use: (client: Client) => Promise<T>): Promise<T> {
  const client = await Client.connect(daemon.socket);
  try {
    return await use(client);
  } finally {
    client.close();
  }
}
