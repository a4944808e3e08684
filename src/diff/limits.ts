/** What one layer may ask for. Beyond these an apply fails and names the entry; sizes of files are the disk's to refuse. */

/** A path or a link's target, without a NUL: the kernel's PATH_MAX. */
export const MAX_PATH_BYTES = 4095;

/** A PAX or GNU long name record (Go `archive/tar`, maxSpecialFileSize). */
export const MAX_RECORD_BYTES = 1 << 20;

/** Stretches of data in a sparse file; GNU tar's map of that many fits into a record. */
export const MAX_SPARSE_STRETCHES = 1 << 16;

export interface LayerLimits {
  /** That one layer may make, whiteouts and parents that it only implies included. */
  readonly inodes: number;
  /** Whose times are remembered until the end. */
  readonly directories: number;
  /** Of names that are remembered for opaque markers that come late. */
  readonly rememberedBytes: number;
}

/** The largest images known have some 10^6 inodes. */
export const LAYER_LIMITS: LayerLimits = {
  inodes: 4_000_000,
  directories: 1_000_000,
  rememberedBytes: 512 << 20,
};

/** Symbolic links that one name may lead through (continuity `fs` RootPath). */
export const MAX_LINKS_FOLLOWED = 255;

/** Directories kept open during an apply. */
export const MAX_OPEN_DIRECTORIES = 256;

/** Layers applied or compared at a time, each by a thread of its own; more wait. */
export const MAX_WORKERS = 4;

/** How long a thread without a job is kept for the next one: to start one anew takes 20 ms of CPU. */
export const THREAD_IDLE_MS = 1000;
