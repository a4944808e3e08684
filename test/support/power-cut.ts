/**
 * What a power cut may leave of a folder: a process's file system calls are recorded by strace(1) and played back on a model of a disk that
 * keeps nothing but what was synced, and of the rest anything. Data is durable by a sync of its file; a name by a sync of its folder, which
 * takes along the names in folders that are new there, as ext4, XFS and btrfs do. They all keep more than that.
 */
import { mkdirSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join, normalize } from "node:path";
import { start } from "./processes.ts";

const CALLS =
  "openat,open,creat,write,pwrite64,pwritev,pwritev2,writev,ftruncate,truncate,fallocate,fsync,fdatasync,syncfs,sync,rename,renameat," +
  "renameat2,mkdir,mkdirat,unlink,unlinkat,rmdir,link,linkat,symlink,symlinkat,mount,mknod,mknodat,copy_file_range,sendfile";
const MAX_STRING_BYTES = 1 << 20;

/** A file or folder, whatever its names. */
interface Inode {
  readonly isFolder: boolean;
}

type Change =
  | { readonly kind: "name"; readonly folder: Inode; readonly name: string; readonly inode: Inode }
  | { readonly kind: "forget"; readonly folder: Inode; readonly name: string }
  | {
      readonly kind: "rename";
      readonly from: Inode;
      readonly oldName: string;
      readonly folder: Inode;
      readonly name: string;
      readonly inode: Inode;
    }
  | { readonly kind: "write"; readonly inode: Inode; readonly position: number; readonly bytes: Uint8Array }
  | { readonly kind: "resize"; readonly inode: Inode; readonly size: number };

/** A change, or a sync of a file, of a folder, of everything. Times are seconds. */
type Event = { readonly start: number; readonly end: number } & (
  | { readonly change: Change }
  | { readonly sync: Inode | "all" }
);

/** A disk's content. */
export class Image {
  readonly #root: Inode;
  readonly #names: Map<Inode, Map<string, Inode>>;
  readonly #contents: Map<Inode, Uint8Array>;

  constructor(
    root: Inode,
    names = new Map<Inode, Map<string, Inode>>(),
    contents = new Map<Inode, Uint8Array>(),
  ) {
    this.#root = root;
    this.#names = names;
    this.#contents = contents;
  }

  copy(): Image {
    const names = new Map(Array.from(this.#names, ([folder, entries]) => [folder, new Map(entries)]));
    return new Image(this.#root, names, new Map(this.#contents));
  }

  apply(change: Change): void {
    switch (change.kind) {
      case "name":
        this.#entries(change.folder).set(change.name, change.inode);
        return;
      case "forget":
        this.#entries(change.folder).delete(change.name);
        return;
      case "rename":
        if (this.#entries(change.from).get(change.oldName) === change.inode)
          this.#entries(change.from).delete(change.oldName);
        this.#entries(change.folder).set(change.name, change.inode);
        return;
      case "write": {
        const before = this.#contents.get(change.inode) ?? new Uint8Array();
        const after = new Uint8Array(Math.max(before.length, change.position + change.bytes.length));
        after.set(before);
        after.set(change.bytes, change.position);
        this.#contents.set(change.inode, after);
        return;
      }
      case "resize": {
        const after = new Uint8Array(change.size);
        after.set((this.#contents.get(change.inode) ?? new Uint8Array()).subarray(0, change.size));
        this.#contents.set(change.inode, after);
      }
    }
  }

  #entries(folder: Inode): Map<string, Inode> {
    const entries = this.#names.get(folder) ?? new Map<string, Inode>();
    this.#names.set(folder, entries);
    return entries;
  }

  /** By a path below the recorded folder; undefined if there is none. */
  find(path: string): Inode | undefined {
    let inode: Inode | undefined = this.#root;
    for (const name of path.split("/").filter(Boolean))
      inode = inode === undefined ? undefined : this.#names.get(inode)?.get(name);
    return inode;
  }

  has(path: string): boolean {
    return this.find(path) !== undefined;
  }

  read(path: string): Uint8Array | undefined {
    const inode = this.find(path);
    return inode === undefined || inode.isFolder
      ? undefined
      : (this.#contents.get(inode) ?? new Uint8Array());
  }
}

/** What {@link cutsOf} plays back. */
export interface Recording {
  readonly before: Image;
  /** In the order of their effect: a change's begin, a sync's end. */
  readonly events: readonly Event[];
}

/** A power cut between two events: what surely is on the disk, and the changes of which anything may be. */
export interface Cut {
  readonly label: string;
  readonly durable: Image;
  readonly pending: readonly Change[];
}

export function* cutsOf({ before, events }: Recording): Generator<Cut> {
  const durable = before.copy();
  let pending: { readonly end: number; readonly change: Change }[] = [];
  yield { label: "at the start", durable, pending: [] };
  for (const [index, event] of events.entries()) {
    if ("change" in event) pending.push(event);
    else {
      const before = pending.filter(({ end }) => end <= event.start);
      const synced = event.sync === "all" ? undefined : withNewFolders(event.sync, before);
      const isSynced = (each: { end: number; change: Change }): boolean =>
        each.end <= event.start && (synced === undefined || synced.has(syncedBy(each.change)));
      for (const each of pending) if (isSynced(each)) durable.apply(each.change);
      pending = pending.filter((each) => !isSynced(each));
    }
    yield { label: `after event ${index}`, durable, pending: pending.map(({ change }) => change) };
  }
}

/** What a sync is of: the file or folder, and the folders whose names there are not durable yet. */
function withNewFolders(inode: Inode, pending: readonly { readonly change: Change }[]): ReadonlySet<Inode> {
  const synced = new Set([inode]);
  for (const folder of synced) {
    for (const { change } of pending) {
      const isNamed = change.kind === "name" || change.kind === "rename";
      if (isNamed && change.folder === folder && change.inode.isFolder) synced.add(change.inode);
    }
  }
  return synced;
}

/** Whose fsync makes a change durable. */
function syncedBy(change: Change): Inode {
  return change.kind === "write" || change.kind === "resize" ? change.inode : change.folder;
}

/** Records what the process does to the files below `folder` while `work` runs. */
export async function record(
  pid: number,
  folder: string,
  traces: string,
  work: () => Promise<void>,
): Promise<Recording> {
  mkdirSync(traces);
  const options = ["-ff", "-y", "-ttt", "-T", "-xx", "-s", String(MAX_STRING_BYTES), "-o", join(traces, "t")];
  const child = start(["strace", ...options, "-e", `trace=${CALLS}`, "-p", String(pid)], {
    stdin: "ignore",
    stdout: "ignore",
    stderr: "pipe",
  });
  const reader = child.stderr.getReader();
  const first = await reader.read();
  const said = new TextDecoder().decode(first.value);
  if (!said.includes("attached")) throw new Error(`strace: ${said}`);
  reader.releaseLock();
  const player = new Player(folder);
  await work();
  child.kill("SIGINT");
  await child.exited;
  const calls = readdirSync(traces).flatMap((name) =>
    readFileSync(join(traces, name), "utf8").split("\n").flatMap(callOf),
  );
  calls.sort((a, b) => a.start - b.start);
  for (const call of calls) player.play(call);
  return player.recording();
}

interface Call {
  readonly start: number;
  readonly end: number;
  readonly name: string;
  readonly args: readonly string[];
  /** Behind the equals sign. */
  readonly result: string;
}

function callOf(line: string): Call[] {
  const match = /^(\d+\.\d+) (\w+)\((.*)\) += (.*?) <(\d+\.\d+)>$/.exec(line);
  if (match === null) return [];
  const [, at = "", name = "", args = "", result = "", took = ""] = match;
  if (result.startsWith("-1 ")) return [];
  return [{ start: Number(at), end: Number(at) + Number(took), name, args: splitArgs(args), result }];
}

/** Strings are hexadecimal throughout, so that commas only separate; those in an array of buffers stay together. */
function splitArgs(args: string): string[] {
  return args.split(/, (?![^[\]]*\])/);
}

function bytesOf(text: string): Buffer {
  const [, hex] = /^"((?:\\x[0-9a-f]{2})*)"$/.exec(text) ?? [];
  if (hex === undefined) throw new Error(`strace did not tell all of ${text.slice(0, 40)}`);
  return Buffer.from(hex.replaceAll("\\x", ""), "hex");
}

/** The path of `7<path>`. */
function fileOf(descriptor: string): string {
  const [, hex = ""] = /^\w+<((?:\\x[0-9a-f]{2})*)>/.exec(descriptor) ?? [];
  return Buffer.from(hex.replaceAll("\\x", ""), "hex").toString();
}

/** Turns calls into changes, by keeping the names as they are at each call. */
class Player {
  readonly #folder: string;
  readonly #root: Inode = { isFolder: true };
  readonly #live: Image;
  readonly #before: Image;
  readonly #events: Event[] = [];
  /** Where the next write(2) goes, by descriptor. */
  readonly #offsets = new Map<string, number>();
  /** Overlays: their upper folders by where they are mounted. */
  readonly #mounts = new Map<string, string>();

  constructor(folder: string) {
    this.#folder = folder;
    this.#live = new Image(this.#root);
    this.#load(folder, this.#root);
    this.#before = this.#live.copy();
  }

  #load(path: string, folder: Inode): void {
    for (const entry of readdirSync(path, { withFileTypes: true })) {
      const inode: Inode = { isFolder: entry.isDirectory() };
      this.#live.apply({ kind: "name", folder, name: entry.name, inode });
      if (inode.isFolder) this.#load(join(path, entry.name), inode);
      else if (entry.isFile()) {
        this.#live.apply({ kind: "write", inode, position: 0, bytes: readFileSync(join(path, entry.name)) });
      }
    }
  }

  recording(): Recording {
    const at = (event: Event): number => ("change" in event ? event.start : event.end);
    return { before: this.#before, events: [...this.#events].sort((a, b) => at(a) - at(b)) };
  }

  play(call: Call): void {
    const { name, args, result } = call;
    const [a = "", b = "", c = "", d = ""] = args;
    const text = (arg: string): string => bytesOf(arg).toString();
    const players: Readonly<Record<string, () => void>> = {
      openat: () => this.#open(call, this.#at(a, text(b)), c, result),
      write: () => this.#append(call, a, bytesOf(b)),
      writev: () => this.#append(call, a, buffersOf(b)),
      pwrite64: () => this.#write(call, fileOf(a), bytesOf(b), Number(d)),
      pwritev: () => this.#write(call, fileOf(a), buffersOf(b), Number(d)),
      pwritev2: () => this.#write(call, fileOf(a), buffersOf(b), Number(d)),
      ftruncate: () =>
        this.#changeFile(call, fileOf(a), (inode) => ({ kind: "resize", inode, size: Number(b) })),
      fsync: () => this.#sync(call, fileOf(a)),
      fdatasync: () => this.#sync(call, fileOf(a)),
      syncfs: () => void this.#events.push({ start: call.start, end: call.end, sync: "all" }),
      mkdir: () => this.#name(call, text(a), { isFolder: true }),
      mkdirat: () => this.#name(call, this.#at(a, text(b)), { isFolder: true }),
      symlinkat: () => this.#name(call, this.#at(b, text(c)), { isFolder: false }),
      rename: () => this.#rename(call, text(a), text(b)),
      renameat: () => this.#rename(call, this.#at(a, text(b)), this.#at(c, text(d))),
      renameat2: () => this.#rename(call, this.#at(a, text(b)), this.#at(c, text(d))),
      unlink: () => this.#forget(call, text(a)),
      rmdir: () => this.#forget(call, text(a)),
      unlinkat: () => this.#forget(call, this.#at(a, text(b))),
      mount: () => this.#mount(text(b), args[4] ?? ""),
    };
    const player = players[name];
    if (player === undefined) throw new Error(`the model does not know ${name}`);
    player();
  }

  #at(descriptor: string, path: string): string {
    return path.startsWith("/") ? path : join(fileOf(descriptor), path);
  }

  /** Below the recorded folder; undefined if it is elsewhere. */
  #own(path: string): string | undefined {
    const plain = normalize(path).replace(/\/$/, "");
    for (const [target, upper] of this.#mounts) {
      if (plain === target || plain.startsWith(`${target}/`))
        return this.#own(upper + plain.slice(target.length));
    }
    if (plain === this.#folder) return "";
    return plain.startsWith(`${this.#folder}/`) ? plain.slice(this.#folder.length + 1) : undefined;
  }

  #mount(target: string, data: string): void {
    const [, upper] = data.startsWith('"') ? (/upperdir=([^,]+)/.exec(bytesOf(data).toString()) ?? []) : [];
    if (upper !== undefined) this.#mounts.set(target, upper);
  }

  #change({ start, end }: Call, change: Change): void {
    this.#live.apply(change);
    this.#events.push({ start, end, change });
  }

  #open(call: Call, path: string, flags: string, result: string): void {
    this.#offsets.set(/^\d+/.exec(result)?.[0] ?? "", 0);
    const own = this.#own(path);
    if (own === undefined) return;
    if (flags.includes("O_CREAT") && !this.#live.has(own)) this.#name(call, path, { isFolder: false });
    else if (flags.includes("O_TRUNC"))
      this.#changeFile(call, path, (inode) => ({ kind: "resize", inode, size: 0 }));
  }

  #append(call: Call, descriptor: string, bytes: Uint8Array): void {
    const number = /^\d+/.exec(descriptor)?.[0] ?? "";
    const position = this.#offsets.get(number) ?? 0;
    this.#offsets.set(number, position + bytes.length);
    this.#write(call, fileOf(descriptor), bytes, position);
  }

  #write(call: Call, path: string, bytes: Uint8Array, position: number): void {
    const written = bytes.subarray(0, Number(/^\d+/.exec(call.result)?.[0]));
    this.#changeFile(call, path, (inode) => ({ kind: "write", inode, position, bytes: written }));
  }

  #changeFile(call: Call, path: string, change: (inode: Inode) => Change): void {
    const own = this.#own(path);
    const inode = own === undefined ? undefined : this.#live.find(own);
    // What was removed while it was open is on no disk afterwards.
    if (inode !== undefined && !inode.isFolder) this.#change(call, change(inode));
  }

  #sync({ start, end }: Call, path: string): void {
    const own = this.#own(path);
    const sync = own === undefined ? undefined : this.#live.find(own);
    if (sync !== undefined) this.#events.push({ start, end, sync });
  }

  #name(call: Call, path: string, inode: Inode): void {
    const place = this.#placeOf(path);
    if (place !== undefined) this.#change(call, { kind: "name", ...place, inode });
  }

  #forget(call: Call, path: string): void {
    const place = this.#placeOf(path);
    if (place !== undefined) this.#change(call, { kind: "forget", ...place });
  }

  #rename(call: Call, from: string, to: string): void {
    const [old, place] = [this.#placeOf(from), this.#placeOf(to)];
    const inode = this.#live.find(this.#own(from) ?? "/nowhere");
    if (old === undefined || place === undefined || inode === undefined) return;
    this.#change(call, { kind: "rename", from: old.folder, oldName: old.name, ...place, inode });
  }

  #placeOf(path: string): { readonly folder: Inode; readonly name: string } | undefined {
    const own = this.#own(path);
    if (own === undefined || own === "") return undefined;
    const parent = dirname(own);
    const folder = this.#live.find(parent === "." ? "" : parent);
    return folder === undefined ? undefined : { folder, name: own.slice(own.lastIndexOf("/") + 1) };
  }
}

/** All of `[{iov_base="…", iov_len=…}, …]`. */
function buffersOf(vector: string): Buffer {
  const buffers = [...vector.matchAll(/iov_base=("(?:\\x[0-9a-f]{2})*"\.*)/g)];
  return Buffer.concat(buffers.map(([, text = ""]) => bytesOf(text)));
}
