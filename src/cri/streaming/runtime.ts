import type { ClientStreams } from "../io/attachment.ts";
import type { TerminalSize } from "../io/exec.ts";
import type { ByteStream } from "./byte-stream.ts";

export interface ExecTarget {
  readonly containerId: string;
  readonly command: readonly string[];
  readonly tty: boolean;
}

export interface AttachTarget {
  readonly containerId: string;
  readonly tty: boolean;
}

/** What a client's connection gives to who serves it. */
export interface Session extends ClientStreams {
  readonly resize: AsyncIterable<TerminalSize> | undefined;
  /** Aborted when the client has gone. */
  readonly gone: AbortSignal;
}

/** What the streaming server serves: kubelet's `streaming.Runtime`. */
export interface StreamingRuntime {
  /** Runs the command; its exit code, once the client has its output. A client that goes does not end it. */
  exec(target: ExecTarget, session: Session): Promise<number>;
  /** Until the container or the client has ended. */
  attach(target: AttachTarget, session: Session): Promise<void>;
  /** One connection to a port in the pod, until either side has ended. */
  portForward(podSandboxId: string, port: number, stream: ByteStream, gone: AbortSignal): Promise<void>;
}
