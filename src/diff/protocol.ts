import type { ErrorCode } from "../model/errors.ts";
import type { LayerTarget } from "./layer.ts";

/*
 * What the daemon and the threads that apply and compare layers say to each other. A thread does one job after another; what comes before a
 * job is of the last one and means nothing.
 */

/** To a thread: the job first; of an apply without a file the blob follows in pieces. */
export type ToWorker =
  | {
      readonly kind: "apply";
      readonly target: LayerTarget;
      readonly reading: "plain" | "sniffed";
      /** The thread reads the blob itself. The file stays open until the job has ended. */
      readonly file: BlobFile | undefined;
    }
  | { readonly kind: "compare"; readonly job: CompareJob }
  | { readonly kind: "bytes"; readonly bytes: Uint8Array }
  | { readonly kind: "end" }
  /** Nothing more comes: the job is to be given up. */
  | { readonly kind: "cancel" };

export interface BlobFile {
  readonly descriptor: number;
  readonly sizeBytes: number;
  readonly digest: string;
}

export interface CompareJob {
  readonly lower: string;
  readonly upper: string;
  /** An overlay's folder that names all that may differ. */
  readonly changes: string | undefined;
  /** Upper bound of modification times, seconds since 1970. */
  readonly latestSeconds: number | undefined;
  /** One int32 each: {@link Credit}. */
  readonly credits: SharedArrayBuffer;
}

/** Pieces of a layer that the thread may still send before it waits, and whether the job was given up. */
export const Credit = { pieces: 0, cancelled: 1 } as const;
export const PIECE_CREDITS = 8;

export type FromWorker =
  /** A piece of the blob has been taken: another may be sent. */
  | { readonly kind: "taken" }
  /** Of the uncompressed layer. */
  | { readonly kind: "applied"; readonly digest: string; readonly sizeBytes: number }
  /** A piece of the layer made. */
  | { readonly kind: "piece"; readonly bytes: Uint8Array }
  | { readonly kind: "compared" }
  /** Without a code it is a defect, and `message` holds its stack. */
  | { readonly kind: "failed"; readonly code: ErrorCode | undefined; readonly message: string };
