/** What happens to pods, in the kubelet's words: `pkg/kubelet/events/event.go`. */
import type { Pod } from "./api/pod.ts";

export interface PodEvent {
  /** Milliseconds since 1970. */
  readonly timeMs: number;
  readonly type: "Normal" | "Warning";
  readonly reason: string;
  readonly message: string;
  readonly pod: string;
  readonly namespace: string;
  readonly uid: string;
  /** Empty for the pod as a whole. */
  readonly container: string;
}

export type EventSink = (event: PodEvent) => void;

/** Records an event of a pod or of one of its containers. */
export type Recorder = (
  pod: Pod,
  container: string,
  type: PodEvent["type"],
  reason: string,
  message: string,
) => void;

export function recorderTo(sink: EventSink, now: () => number = Date.now): Recorder {
  return ({ metadata }, container, type, reason, message) => {
    const { name, namespace, uid } = metadata;
    sink({ timeMs: now(), type, reason, message, pod: name, namespace, uid, container });
  };
}
