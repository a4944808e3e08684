import type { SELinuxOption } from "#gen/runtime/v1/api_pb.ts";

export interface LabelPair {
  /** Empty where the policy has none. */
  readonly processLabel: string;
  readonly mountLabel: string;
}

/** The labels of containers where SELinux is on. */
export interface SelinuxLabels {
  /**
   * What a request asks for; without, the pod's label, or a category of its own. Reserves the label. @throws Unknown for a level
   * that is none
   */
  labelsFor(asked: SELinuxOption | undefined, podLabel: string): LabelPair;
  /** That of the processes of a runtime, which for one with virtual machines has a type of its own. */
  labelOfRuntime(label: string, runtimeType: string): string;
  /** Its category may be given again. */
  release(label: string): void;
  /** One that is in use, found after a restart. */
  reserve(label: string): void;
  /** Labels a file or a folder with all that is in it. @throws ErrnoException */
  relabel(path: string, label: string): Promise<void>;
}
