import type { ImageStore } from "#gen/containerd/types/transfer/imagestore_pb.ts";
import type { ImageExportStream, ImageImportStream } from "#gen/containerd/types/transfer/importexport_pb.ts";
import type { OCIRegistry } from "#gen/containerd/types/transfer/registry_pb.ts";
import type { OciDescriptor } from "./oci.ts";
import type { Scope } from "./scope.ts";
import type { MessageStream } from "./streams.ts";

/** One end of a transfer, with the client's streams that it names. */
export type TransferEnd =
  | { readonly kind: "images"; readonly images: ImageStore }
  | {
      readonly kind: "registry";
      readonly registry: OCIRegistry;
      /** Asked for credentials. */
      readonly auth?: MessageStream | undefined;
      /** Takes the log of requests, if there is to be one. */
      readonly log?: MessageStream | undefined;
    }
  | { readonly kind: "import"; readonly archive: ImageImportStream; readonly stream: MessageStream }
  | { readonly kind: "export"; readonly archive: ImageExportStream; readonly stream: MessageStream };

/** A step of a transfer, as the client shows it. */
export interface TransferProgress {
  readonly event: string;
  /** Of the object that it is about; empty for the transfer as a whole. */
  readonly name?: string;
  readonly parents?: readonly string[];
  /** Bytes. */
  readonly progress?: number;
  readonly total?: number;
  readonly descriptor?: OciDescriptor;
}

/** Called in order; must not throw. */
export type ProgressListener = (progress: TransferProgress) => void;

/** Moves images between registries, archives and the image store (containerd `core/transfer`). */
export interface Transferrer {
  /** Whether there is a way from that source to that destination. */
  goes(source: TransferEnd, destination: TransferEnd): boolean;
  /**
   * @param onProgress without it nothing is gathered for it
   * @throws Unimplemented if nothing goes from that source to that destination, and what the way throws
   */
  transfer(
    scope: Scope,
    source: TransferEnd,
    destination: TransferEnd,
    onProgress?: ProgressListener,
  ): Promise<void>;
}
