/** Probes containers from their start to their end: `pkg/kubelet/prober`. */
import type { CriClient } from "../../client/cri.ts";
import { startTimer } from "../../lib/timer.ts";
import { messageOf } from "../../model/errors.ts";
import type { ProbeResult, ProbeResults } from "../actions.ts";
import type { Container } from "../api/container.ts";
import type { Probe } from "../api/handlers.ts";
import type { Recorder } from "../events.ts";
import { latest, type ObservedContainer, type ObservedPod } from "../status.ts";
import type { PodUnit } from "../unit.ts";
import { tryProbe } from "./handlers.ts";

type Kind = "Startup" | "Liveness" | "Readiness";

const FIELDS = { Startup: "startupProbe", Liveness: "livenessProbe", Readiness: "readinessProbe" } as const;
const KINDS: readonly Kind[] = ["Startup", "Liveness", "Readiness"];
const INITIAL: Readonly<Record<Kind, ProbeResult>> = {
  Startup: "unknown",
  Liveness: "success",
  Readiness: "failure",
};
/** A probe that could not be made at all is made again so often before its failure counts. */
const TRIES = 3;

export interface ProberParts {
  readonly cri: CriClient;
  readonly record: Recorder;
  /** A result has changed: the pod wants another look. */
  readonly onChange: (uid: string) => void;
}

interface Watch {
  readonly unit: PodUnit;
  readonly container: Container;
  readonly id: string;
  readonly startedMs: number;
  readonly kind: Kind;
  readonly probe: Probe;
  podIp: string;
  timer: ReturnType<typeof setTimeout> | undefined;
  stopped: boolean;
  last: ProbeResult | undefined;
  run: number;
}

export class Prober implements ProbeResults {
  readonly #parts: ProberParts;
  /** By kind and container id. */
  readonly #watches = new Map<string, Watch>();
  readonly #results = new Map<string, ProbeResult>();
  /** Pods that are to end, each with the results that stand until then: nobody wants to know any longer whether their containers live. */
  readonly #ending = new Map<string, string[]>();

  constructor(parts: ProberParts) {
    this.#parts = parts;
  }

  startup(id: string): ProbeResult | undefined {
    return this.#results.get(`Startup ${id}`);
  }

  liveness(id: string): ProbeResult | undefined {
    return this.#results.get(`Liveness ${id}`);
  }

  readiness(id: string): ProbeResult | undefined {
    return this.#results.get(`Readiness ${id}`);
  }

  /** Takes over what runs now: begins with new containers, ends with those that are gone. */
  update(unit: PodUnit, observed: ObservedPod): void {
    const { uid } = unit.pod.metadata;
    const wanted = new Set<string>();
    const { spec } = unit.pod;
    const sidecars = (spec.initContainers ?? []).filter(({ restartPolicy }) => restartPolicy === "Always");
    const podIp = observed.ips[0] ?? (spec.hostNetwork ? "127.0.0.1" : "");
    for (const container of [...sidecars, ...spec.containers]) {
      const last = latest(observed, container.name);
      if (last?.state !== "running") continue;
      for (const kind of KINDS) {
        const probe = container[FIELDS[kind]];
        if (probe === undefined || (kind !== "Readiness" && this.#ending.has(uid))) continue;
        const key = `${kind} ${last.id}`;
        wanted.add(key);
        const watch = this.#watches.get(key);
        if (watch === undefined) this.#begin(key, unit, container, last, kind, probe, podIp);
        else watch.podIp = podIp;
      }
    }
    for (const [key, watch] of this.#watches) {
      if (watch.unit.pod.metadata.uid === uid && !wanted.has(key)) this.#stop(key, watch);
    }
  }

  /** The pod is to end: from now on only its readiness is probed, as by kubelets. */
  endLiveness(uid: string): void {
    const quiet = this.#ending.get(uid) ?? [];
    this.#ending.set(uid, quiet);
    for (const [key, watch] of this.#watches) {
      if (watch.unit.pod.metadata.uid !== uid || watch.kind === "Readiness") continue;
      this.#stop(key, watch);
      this.#results.set(key, "success");
      quiet.push(key);
    }
  }

  /** Ends all probes of a pod; their results stand no longer. */
  forget(uid: string): void {
    for (const key of this.#ending.get(uid) ?? []) this.#results.delete(key);
    this.#ending.delete(uid);
    for (const [key, watch] of this.#watches) {
      if (watch.unit.pod.metadata.uid === uid) this.#stop(key, watch);
    }
  }

  close(): void {
    for (const [key, watch] of this.#watches) this.#stop(key, watch);
  }

  #stop(key: string, watch: Watch): void {
    watch.stopped = true;
    clearTimeout(watch.timer);
    this.#watches.delete(key);
    this.#results.delete(key);
  }

  #begin(
    key: string,
    unit: PodUnit,
    container: Container,
    { id, startedMs }: ObservedContainer,
    kind: Kind,
    probe: Probe,
    podIp: string,
  ): void {
    const watch: Watch = {
      unit,
      container,
      id,
      startedMs,
      kind,
      probe,
      podIp,
      timer: undefined,
      stopped: false,
      last: undefined,
      run: 0,
    };
    this.#watches.set(key, watch);
    this.#results.set(key, INITIAL[kind]);
    const delayMs = Math.max(0, startedMs + probe.initialDelaySeconds * 1000 - Date.now());
    this.#schedule(key, watch, delayMs);
  }

  #schedule(key: string, watch: Watch, delayMs: number): void {
    if (watch.stopped) return;
    watch.timer = startTimer(() => void this.#tick(key, watch), delayMs);
  }

  async #tick(key: string, watch: Watch): Promise<void> {
    const startedAt = performance.now();
    // Others wait until the startup probe has had its success.
    const waits =
      watch.kind !== "Startup" &&
      watch.container.startupProbe !== undefined &&
      this.startup(watch.id) !== "success";
    const onHold = !waits && (await this.#probe(key, watch));
    const periodMs = waits ? 100 : watch.probe.periodSeconds * 1000;
    if (!onHold) this.#schedule(key, watch, Math.max(0, periodMs - (performance.now() - startedAt)));
  }

  /** True: its verdict is final for this container. */
  async #probe(key: string, watch: Watch): Promise<boolean> {
    const { probe, kind } = watch;
    const result = await this.#outcome(watch);
    if (watch.stopped || result === undefined) return false;
    watch.run = watch.last === result ? watch.run + 1 : 1;
    watch.last = result;
    const threshold = result === "success" ? probe.successThreshold : probe.failureThreshold;
    if (watch.run < threshold) return false;
    if (this.#results.get(key) !== result) {
      this.#results.set(key, result);
      this.#parts.onChange(watch.unit.pod.metadata.uid);
    }
    return kind === "Startup" || (kind === "Liveness" && result === "failure");
  }

  /** Undefined: nobody can tell, so nothing changes. */
  async #outcome(watch: Watch): Promise<"success" | "failure" | undefined> {
    const { cri, record } = this.#parts;
    const { unit, container, kind, probe } = watch;
    const target = { cri, container, containerId: watch.id, podIp: watch.podIp };
    for (let attempt = 1; ; attempt++) {
      try {
        const { result, output } = await tryProbe(target, probe);
        if (watch.stopped) return undefined;
        if (result === "failure")
          record(unit.pod, container.name, "Warning", "Unhealthy", `${kind} probe failed: ${output}`);
        if (result === "warning")
          record(unit.pod, container.name, "Warning", "ProbeWarning", `${kind} probe warning: ${output}`);
        return result === "failure" ? "failure" : "success";
      } catch (error) {
        if (watch.stopped) return undefined;
        if (attempt < TRIES) continue;
        const message = `${kind} probe errored and resulted in unknown state: ${messageOf(error)}`;
        record(unit.pod, container.name, "Warning", "Unhealthy", message);
        return undefined;
      }
    }
  }
}
