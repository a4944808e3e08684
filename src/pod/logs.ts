/** CRI's log files: `<RFC 3339 time> stdout|stderr F|P <text>`, a P is continued by the next line of its stream. */
import {
  closeSync,
  existsSync,
  type FSWatcher,
  fstatSync,
  openSync,
  readdirSync,
  readSync,
  statSync,
  watch,
} from "node:fs";
import { basename, dirname, join } from "node:path";

export interface LogLine {
  readonly time: string;
  readonly stream: "stdout" | "stderr";
  readonly text: string;
  /** The text ends in a line feed. */
  readonly full: boolean;
}

const CHUNK_BYTES = 64 << 10;
/** A look at a file without a word from inotify. */
const POLL_MS = 250;

/** Undefined for what is no CRI log line, such as a power cut leaves: it is passed over, as by kubelets. */
export function parseLogLine(line: string): LogLine | undefined {
  const match = /^(\S+) (stdout|stderr) (\S+) ?([\s\S]*)$/.exec(line);
  if (match === null) return undefined;
  const [, time = "", stream, tags = "", text = ""] = match;
  return { time, stream: stream as LogLine["stream"], text, full: tags.split(":")[0] !== "P" };
}

/** A file's lines from where the last call ended. Holds the descriptor, so that a file that is rotated away is read to its end. */
class LogReader {
  readonly #path: string;
  #fd: number | undefined;
  #rest = Buffer.alloc(0);
  readonly #chunk = Buffer.allocUnsafe(CHUNK_BYTES);

  constructor(path: string) {
    this.#path = path;
  }

  *read(): Generator<LogLine> {
    yield* this.#drain();
    if (this.#rotated()) {
      this.close();
      yield* this.#drain();
    }
  }

  *#drain(): Generator<LogLine> {
    if (this.#fd === undefined) {
      if (!existsSync(this.#path)) return;
      this.#fd = openSync(this.#path, "r");
    }
    for (;;) {
      const count = readSync(this.#fd, this.#chunk);
      if (count === 0) return;
      let buffer = Buffer.concat([this.#rest, this.#chunk.subarray(0, count)]);
      for (let at = buffer.indexOf(10); at >= 0; at = buffer.indexOf(10)) {
        const line = parseLogLine(buffer.subarray(0, at).toString());
        if (line !== undefined) yield line;
        buffer = buffer.subarray(at + 1);
      }
      this.#rest = Buffer.from(buffer);
    }
  }

  #rotated(): boolean {
    if (this.#fd === undefined) return false;
    const now = statSync(this.#path, { throwIfNoEntry: false });
    return now !== undefined && now.ino !== fstatSync(this.#fd).ino;
  }

  close(): void {
    if (this.#fd !== undefined) closeSync(this.#fd);
    this.#fd = undefined;
    this.#rest = Buffer.alloc(0);
  }
}

export interface FollowOptions {
  /** Resolves when nothing more will be written. */
  readonly ended: Promise<unknown>;
  readonly signal?: AbortSignal;
}

/** Lines as they are written, until the writer has ended and all is read, or the signal aborts. */
export async function* followLog(path: string, { ended, signal }: FollowOptions): AsyncGenerator<LogLine> {
  const reader = new LogReader(path);
  let over = false;
  let wake: () => void = () => undefined;
  void ended.then(() => {
    over = true;
    wake();
  });
  signal?.addEventListener("abort", () => wake(), { once: true });
  const watcher = watchFolder(dirname(path), () => wake());
  try {
    while (signal?.aborted !== true) {
      const last = over;
      yield* reader.read();
      if (last) return;
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, POLL_MS);
        wake = () => {
          clearTimeout(timer);
          resolve();
        };
        if (over !== last || signal?.aborted === true) wake();
      });
    }
  } finally {
    watcher?.close();
    reader.close();
  }
}

/** Undefined if the folder is not there, or the machine is out of watches: then polling has to do. */
function watchFolder(folder: string, onChange: () => void): FSWatcher | undefined {
  try {
    const watcher = watch(folder, onChange);
    watcher.on("error", () => watcher.close());
    return watcher;
  } catch {
    return undefined;
  }
}

export interface ReadOptions {
  /** Only lines at or after it, in milliseconds since 1970. */
  readonly sinceMs?: number | undefined;
  readonly tailLines?: number | undefined;
}

/** What is written so far, those of earlier rotations of the file first. */
export function readLog(path: string, options: ReadOptions = {}): LogLine[] {
  return select([...rotatedOf(path), path].flatMap(linesIn), options);
}

/** What is to be shown before a file is followed: lines of its earlier rotations, and how many of its own lines are passed over. */
export function beforeFollowing(
  path: string,
  options: ReadOptions,
): { readonly earlier: readonly LogLine[]; readonly skipped: number } {
  const own = linesIn(path);
  const shown = select([...rotatedOf(path).flatMap(linesIn), ...own], options);
  return {
    earlier: shown.slice(0, Math.max(0, shown.length - own.length)),
    skipped: Math.max(0, own.length - shown.length),
  };
}

function linesIn(path: string): LogLine[] {
  const reader = new LogReader(path);
  try {
    return [...reader.read()];
  } finally {
    reader.close();
  }
}

function select(all: LogLine[], { sinceMs, tailLines }: ReadOptions): LogLine[] {
  const lines = sinceMs === undefined ? all : all.filter(({ time }) => Date.parse(time) >= sinceMs);
  if (tailLines === undefined) return lines;
  let wanted = tailLines;
  let from = lines.length;
  while (from > 0 && wanted >= 0) {
    if (lines[from - 1]?.full === true && from !== lines.length + 1) wanted -= 1;
    if (wanted < 0) break;
    from -= 1;
  }
  return lines.slice(from);
}

/** `0.log.20260102-150405` stands beside `0.log`, the oldest first; compressed ones are left out. */
function rotatedOf(path: string): string[] {
  const prefix = `${basename(path)}.`;
  const folder = dirname(path);
  if (!existsSync(folder)) return [];
  return readdirSync(folder)
    .filter((name) => name.startsWith(prefix) && /^[\d-]+$/.test(name.slice(prefix.length)))
    .sort()
    .map((name) => join(folder, name));
}
