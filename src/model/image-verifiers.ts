import type { OciDescriptor } from "./oci.ts";

/** Judges an image before it is pulled (containerd `pkg/imageverifier`). */
export interface ImageVerifier {
  /** Of its plugin, such as `bindir`; named in errors. */
  readonly name: string;
  /** What it throws stops the pull as well, told as a verifier that failed. */
  verify(image: string, target: OciDescriptor, signal?: AbortSignal): Promise<Judgement>;
}

export interface Judgement {
  readonly ok: boolean;
  /** For the user. */
  readonly reason: string;
}
