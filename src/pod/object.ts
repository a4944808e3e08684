/** A pod as `kubectl get -o json` shows it: `v1` with its status (`pkg/kubelet/kubelet_pods.go`, `generateAPIPodStatus`). */
import { closeSync, constants, fstatSync, openSync, readSync } from "node:fs";
import type { Container } from "./api/container.ts";
import type { AnyContainer } from "./api/validate-container.ts";
import type { FoundPod } from "./found.ts";
import { type LiveState, readLive } from "./live.ts";
import { readLog } from "./logs.ts";
import { podPaths, type Roots } from "./paths.ts";
import { phaseOf } from "./phase.ts";
import { restartsAfter } from "./restart.ts";
import { qosClass } from "./spec/qos.ts";
import { latest, type ObservedContainer } from "./status.ts";

export interface ContainerView {
  readonly name: string;
  readonly state: object;
  readonly lastState: object;
  readonly ready: boolean;
  readonly started: boolean;
  readonly restartCount: number;
  readonly image: string;
  readonly imageID: string;
  readonly containerID?: string;
  /** `Running`, `Completed`, `CrashLoopBackOff` …: the word in kubectl's STATUS column. */
  readonly word: string;
}

export interface PodView {
  readonly apiVersion: "v1";
  readonly kind: "Pod";
  readonly metadata: object;
  readonly spec: object;
  readonly status: {
    readonly phase: string;
    readonly reason?: string;
    readonly podIP?: string;
    readonly startTime?: string;
    readonly qosClass: string;
    readonly conditions: readonly { readonly type: string; readonly status: string }[];
    readonly initContainerStatuses: readonly ContainerView[];
    readonly containerStatuses: readonly ContainerView[];
    readonly ephemeralContainerStatuses: readonly ContainerView[];
  };
}

const MAX_MESSAGE_BYTES = 4096;
const MAX_LOG_MESSAGE_BYTES = 2048;
const MAX_LOG_MESSAGE_LINES = 80;

/** @param runtimeName as the runtime's Version has it: what kubelets put before containers' ids */
export function podView(found: FoundPod, roots: Roots, runtimeName: string): PodView {
  const { pod, observed, stored } = found;
  const { spec, metadata } = pod;
  const live = readLive(podPaths(roots, metadata));
  const view = (container: AnyContainer): ContainerView => containerView(found, live, container, runtimeName);
  const isSidecar = ({ restartPolicy }: Container): boolean => restartPolicy === "Always";
  // An init container that has done its work is ready, as in the kubelet's own status; a sidecar only while it runs.
  const init = (spec.initContainers ?? []).map((each) => {
    const shown = view(each);
    return { ...shown, ready: shown.ready || (!isSidecar(each) && shown.word === "Completed") };
  });
  const ordinary = spec.containers.map(view);
  const sidecars = init.filter((_, index) => isSidecar(spec.initContainers?.[index] as Container));
  // `pkg/kubelet/status/generate.go`: what comes of sidecars later does not undo it.
  const initialized =
    spec.containers.some(({ name }) => hasBegun(latest(observed, name))) ||
    init.every((each) => (sidecars.includes(each) ? each.started : each.ready));
  const ready = [...sidecars, ...ordinary].every((each) => each.ready);
  const condition = (type: string, holds: boolean) => ({ type, status: holds ? "True" : "False" });
  const [ip] = observed.ips;
  const phase = live.reason === "" ? phaseOf(spec, observed, live.ended) : "Failed";
  const begun = stored?.acceptedMs ?? milliseconds(observed.sandboxes.at(-1)?.createdAt);
  return {
    apiVersion: "v1",
    kind: "Pod",
    metadata: { ...metadata, ...(begun === undefined ? {} : { creationTimestamp: time(begun) }) },
    spec,
    status: {
      phase,
      ...(live.reason === "" ? {} : { reason: live.reason }),
      ...(ip === undefined ? {} : { podIP: ip, podIPs: observed.ips.map((each) => ({ ip: each })) }),
      ...(begun === undefined ? {} : { startTime: time(begun) }),
      qosClass: qosClass(spec),
      conditions: [
        condition(
          "PodReadyToStartContainers",
          observed.ips.length > 0 || (spec.hostNetwork && observed.sandboxes.length > 0),
        ),
        condition("Initialized", initialized),
        condition("Ready", ready),
        condition("ContainersReady", ready),
        condition("PodScheduled", true),
      ],
      initContainerStatuses: init,
      containerStatuses: ordinary,
      ephemeralContainerStatuses: (spec.ephemeralContainers ?? []).map(view),
    },
  };
}

function hasBegun(container: ObservedContainer | undefined): boolean {
  return container?.state === "running" || container?.state === "exited";
}

function milliseconds(nanoseconds: bigint | undefined): number | undefined {
  return nanoseconds === undefined ? undefined : Number(nanoseconds) / 1e6;
}

function containerView(
  { pod, observed }: FoundPod,
  live: LiveState,
  container: AnyContainer,
  runtimeName: string,
): ContainerView {
  const { name, image } = container;
  const last = latest(observed, name);
  const begins = pod.spec.initContainers?.length ? "PodInitializing" : "ContainerCreating";
  const waiting = isStartedAgain(pod, container, last) ? live.waiting[name] : undefined;
  if (last === undefined || (waiting !== undefined && last.state !== "running")) {
    const { reason, message } = waiting ?? { reason: begins, message: "" };
    return {
      name,
      state: { waiting: { reason, ...(message === "" ? {} : { message }) } },
      lastState: last?.state === "exited" ? { terminated: terminated(last, runtimeName) } : {},
      ready: false,
      started: false,
      restartCount: last?.facts.restartCount ?? 0,
      image,
      imageID: last?.imageRef ?? "",
      word: reason,
    };
  }
  const before = observed.containers.find(
    (each) => each.name === name && each !== last && each.state === "exited",
  );
  const running = last.state === "running";
  return {
    name,
    state: stateOf(last, runtimeName),
    lastState: before === undefined ? {} : { terminated: terminated(before, runtimeName) },
    ready: running ? (live.ready[last.id] ?? true) : false,
    started: running ? (live.started[last.id] ?? true) : false,
    restartCount: last.facts.restartCount,
    image,
    imageID: last.imageRef,
    containerID: `${runtimeName}://${last.id}`,
    word: running ? "Running" : last.state === "exited" ? wordOf(last) : "ContainerCreating",
  };
}

/** Only what is to be started waits for it. */
function isStartedAgain(
  { spec }: FoundPod["pod"],
  container: AnyContainer,
  last: ObservedContainer | undefined,
): boolean {
  if (last?.state !== "exited") return true;
  const isEphemeral = spec.ephemeralContainers?.some(({ name }) => name === container.name) ?? false;
  return !isEphemeral && restartsAfter(container as Container, spec.restartPolicy, last.exitCode);
}

function wordOf({ reason, exitCode }: ObservedContainer): string {
  return reason !== "" ? reason : exitCode === 0 ? "Completed" : "Error";
}

function stateOf(last: ObservedContainer, runtimeName: string): object {
  if (last.state === "running") return { running: { startedAt: time(last.startedMs) } };
  if (last.state === "exited") return { terminated: terminated(last, runtimeName) };
  return { waiting: { reason: "ContainerCreating" } };
}

function terminated(last: ObservedContainer, runtimeName: string): object {
  const message = [last.message, terminationMessage(last)].filter((each) => each !== "").join(": ");
  return {
    exitCode: last.exitCode,
    reason: wordOf(last),
    ...(message === "" ? {} : { message }),
    startedAt: time(last.startedMs),
    finishedAt: time(last.finishedMs),
    containerID: `${runtimeName}://${last.id}`,
  };
}

/** What the container left in its file, else, if its policy says so and it failed, the end of its log. */
export function terminationMessage({ facts, mounts, exitCode, logPath }: ObservedContainer): string {
  const path = facts.terminationMessagePath;
  const file = path === "" ? undefined : mounts.find(({ containerPath }) => containerPath === path)?.hostPath;
  const own = file === undefined ? "" : tail(file, MAX_MESSAGE_BYTES);
  if (own !== "" || exitCode === 0 || facts.terminationMessagePolicy !== "FallbackToLogsOnError") return own;
  const lines = readLog(logPath, { tailLines: MAX_LOG_MESSAGE_LINES });
  const text = lines.map((line) => `${line.text}${line.full ? "\n" : ""}`).join("");
  return Buffer.from(text).subarray(-MAX_LOG_MESSAGE_BYTES).toString();
}

/** The end of a file; empty if it is gone, or no file at all: a pod may mount what it likes there. */
function tail(path: string, bytes: number): string {
  let fd: number;
  try {
    // A pipe is not waited for.
    fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return "";
    throw error;
  }
  try {
    const status = fstatSync(fd);
    if (!status.isFile()) return "";
    const { size } = status;
    const buffer = Buffer.alloc(Math.min(bytes, size));
    const count = readSync(fd, buffer, 0, buffer.length, Math.max(0, size - bytes));
    return buffer.subarray(0, count).toString();
  } finally {
    closeSync(fd);
  }
}

function time(ms: number): string {
  return new Date(ms).toISOString().replace(/\.\d+Z$/, "Z");
}
