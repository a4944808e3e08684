/** The folder of network configurations, followed as it changes, comes and goes. */
import { existsSync, type FSWatcher, statSync, watch } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import type { Logger } from "../lib/log.ts";
import { BunkerdError, messageOf } from "../model/errors.ts";
import { configFiles, loadNetworkList, type NetworkList } from "./network-list.ts";

export interface ConfigFolderOptions {
  readonly path: string;
  /** Of the files in the order of their names; 0: all. */
  readonly maxFiles: number;
}

/** Several changes that belong together (a file made, written, renamed) are read once. */
const SETTLE_MS = 30;
/** Where inotify has no watches left, the folder is read at this pace. */
const POLL_MS = 500;

const ENDINGS = [".conf", ".conflist", ".json"];

export class ConfigFolder {
  readonly path: string;
  readonly maxFiles: number;
  readonly #logger: Logger;
  readonly #watchers: FSWatcher[] = [];
  #networks: readonly NetworkList[] = [];
  #failure: BunkerdError | undefined;
  /** Of the folder that is watched; undefined if there is none. */
  #identity: string | undefined;
  #closed = false;
  #settling: ReturnType<typeof setTimeout> | undefined;
  #polling: ReturnType<typeof setInterval> | undefined;

  /** Reads the folder at once; it need not be there yet. */
  constructor({ path, maxFiles }: ConfigFolderOptions, { logger }: { readonly logger: Logger }) {
    this.path = resolve(path);
    this.maxFiles = maxFiles;
    this.#logger = logger.with({ folder: this.path });
    this.#watch();
    this.#load();
  }

  /** In the order of their files' names: the first is the pod's `eth0`. */
  get networks(): readonly NetworkList[] {
    this.#follow();
    return this.#networks;
  }

  /** Why there are none. */
  get failure(): BunkerdError | undefined {
    this.#follow();
    return this.#failure;
  }

  /** That one further above was moved away no watch tells. */
  #follow(): void {
    if (this.#closed || identityOf(this.path) === this.#identity) return;
    this.#watch();
    this.#load();
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#settling);
    clearInterval(this.#polling);
    for (const watcher of this.#watchers.splice(0)) watcher.close();
  }

  #load(): void {
    const before = this.#failure?.message;
    try {
      this.#networks = loadFolder(this.path, this.maxFiles);
      this.#failure = undefined;
      if (before !== undefined) this.#logger.info("cni config loaded");
    } catch (error) {
      this.#networks = [];
      const words = `cni config load failed: ${messageOf(error)}: failed to load cni config`;
      this.#failure = new BunkerdError("FailedPrecondition", words, { cause: error });
      if (before !== words)
        this.#logger.warn("failed to load cni config, pods get no network until it is there", {
          error: this.#failure,
        });
    }
  }

  /**
   * Watches the folder, and the one above it for the folder: one that is removed and made again is another, of which the old watch would tell
   * nothing. Where it is not there, all those above, each for the next one below. Not so while it is there: the daemon would wake for whatever
   * is done in `/etc`, or in `/tmp`.
   */
  #watch(): void {
    for (const watcher of this.#watchers.splice(0)) watcher.close();
    this.#identity = identityOf(this.path);
    const isThere = this.#identity !== undefined;
    try {
      if (isThere) this.#add(this.path, undefined);
      for (let child = this.path; child !== "/"; child = dirname(child)) {
        const folder = dirname(child);
        if (existsSync(folder)) this.#add(folder, basename(child));
        if (isThere) break;
      }
    } catch (error) {
      // It went while we looked: the watch of the one above it tells when it is back.
      if ((error as NodeJS.ErrnoException).code === "ENOENT") return;
      this.#logger.warn("failed to watch cni config, reading it by the clock", { error });
      this.#polling ??= setInterval(() => this.#load(), POLL_MS).unref();
    }
  }

  #add(folder: string, child: string | undefined): void {
    const watcher = watch(folder, { persistent: false }, (_event, name) => {
      if (child === undefined || name === child) this.#changed(child !== undefined);
    });
    watcher.on("error", (error) => this.#logger.warn("watch of cni config failed", { error }));
    this.#watchers.push(watcher);
  }

  #folders = false;

  #changed(folders: boolean): void {
    this.#folders ||= folders;
    this.#settling ??= setTimeout(() => {
      this.#settling = undefined;
      if (this.#folders) this.#watch();
      this.#folders = false;
      this.#load();
    }, SETTLE_MS);
  }
}

/** Undefined also of one that cannot be reached: to load it says why. */
function identityOf(path: string): string | undefined {
  try {
    const { dev, ino } = statSync(path);
    return `${dev} ${ino}`;
  } catch {
    return undefined;
  }
}

/** As go-cni's `loadFromConfDir`: the first bad file ends it. @throws FailedPrecondition if there is none, InvalidArgument */
function loadFolder(folder: string, maxFiles: number): readonly NetworkList[] {
  let files: readonly string[];
  try {
    files = configFiles(folder, ENDINGS);
  } catch (error) {
    const words = `failed to read config file: ${messageOf(error)}: failed to read config file`;
    throw new BunkerdError("FailedPrecondition", words, { cause: error });
  }
  if (files.length === 0)
    throw new BunkerdError(
      "FailedPrecondition",
      `no network config found in ${folder}: cni plugin not initialized`,
    );
  return files.slice(0, maxFiles > 0 ? maxFiles : undefined).map((file) => {
    try {
      return loadNetworkList(file);
    } catch (error) {
      const kind = file.endsWith(".conflist") ? "config list file" : "config file";
      const words = `failed to load CNI ${kind} ${join(folder, basename(file))}: ${messageOf(error)}: invalid cni config`;
      throw new BunkerdError("InvalidArgument", words, { cause: error });
    }
  });
}
