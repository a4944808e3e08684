/**
 * Random pods of a kubelet's: each life belongs to one worker, who knows of each pod, container and image which states it may be in. A call that was answered
 * leaves one state; one that was cut off, or given up, leaves those before and after it, and those on the way.
 */
import { rmSync } from "node:fs";
import { join } from "node:path";
import { ConnectError } from "@connectrpc/connect";
import {
  type ContainerConfig,
  ContainerState,
  type ContainerStatus,
  ImageService,
  type PodSandboxConfig,
  PodSandboxState,
} from "#gen/runtime/v1/api_pb.ts";
import { BOX_IMAGE, type CriDaemon, podConfig, script } from "./cri.ts";
import type { Random } from "./random.ts";

const PODS = 2;
const CONTAINERS = 3;
/** What a container that ends by itself comes to. */
const OWN_END = 7;
const SLEEPS = "trap 'exit 0' TERM; while true; do sleep 0.05; done";
const ENDS = `sleep 0.${"$"}1; exit ${OWN_END}`;

type PodPhase = "absent" | "ready" | "ended";
/** `unknown` is one whose making was cut off before its status was written. */
type ContainerPhase = "absent" | "created" | "running" | "exited" | "unknown";
type ImagePhase = "absent" | "present";

/** Which states something may be in. */
class Possible<S extends string> {
  #states: Set<S>;

  constructor(state: S) {
    this.#states = new Set([state]);
  }

  is(state: S): boolean {
    return this.#states.size === 1 && this.#states.has(state);
  }

  can(state: S): boolean {
    return this.#states.has(state);
  }

  /** A call begins that may lead there. */
  may(...states: readonly S[]): void {
    for (const state of states) this.#states.add(state);
  }

  set(state: S): void {
    this.#states = new Set([state]);
  }

  /** What it is in truth. @throws unless it may be */
  settle(state: S, what: string): void {
    if (!this.#states.has(state))
      throw new Error(`${what} is ${state}, not ${[...this.#states].join(" or ")}`);
    this.set(state);
  }
}

interface Container {
  readonly config: ContainerConfig;
  readonly pod: Pod;
  readonly state: Possible<ContainerPhase>;
  readonly endsByItself: boolean;
  id: string | undefined;
  /** Of its first process, once it has been seen. */
  pid: number | undefined;
  /** Its start was answered. */
  started: boolean;
  /** Somebody has begun to stop it. */
  meddled: boolean;
}

interface Pod {
  readonly config: PodSandboxConfig;
  readonly state: Possible<PodPhase>;
  readonly containers: Container[];
  id: string | undefined;
  pid: number | undefined;
  ip: string | undefined;
  /** It is being stopped while something else is done in it. */
  ending: boolean;
}

/** What there is, as CRI and the machine tell. */
export interface Seen {
  readonly pods: ReadonlyMap<string, { id: string; ready: boolean }>;
  readonly containers: ReadonlyMap<string, { id: string; state: ContainerState }>;
}

const keyOf = (pod: string, name = ""): string => `${pod}/${name}`;

/** The lists, by names. @throws if two have the same */
export async function look({ runtime }: CriDaemon): Promise<Seen> {
  const [{ items }, { containers: all }] = [
    await runtime.listPodSandbox({}),
    await runtime.listContainers({}),
  ];
  const pods = new Map<string, { id: string; ready: boolean }>();
  const names = new Map<string, string>();
  for (const { id, metadata, state } of items) {
    const name = keyOf(metadata?.name ?? "");
    if (pods.has(name)) throw new Error(`two pods are called ${name}`);
    pods.set(name, { id, ready: state === PodSandboxState.SANDBOX_READY });
    names.set(id, metadata?.name ?? "");
  }
  const containers = new Map<string, { id: string; state: ContainerState }>();
  for (const { id, metadata, podSandboxId, state } of all) {
    const name = keyOf(names.get(podSandboxId) ?? `of the unknown pod ${podSandboxId}`, metadata?.name);
    if (containers.has(name)) throw new Error(`two containers are called ${name}`);
    containers.set(name, { id, state });
  }
  return { pods, containers };
}

const PHASES: Readonly<Record<ContainerState, ContainerPhase>> = {
  [ContainerState.CONTAINER_CREATED]: "created",
  [ContainerState.CONTAINER_RUNNING]: "running",
  [ContainerState.CONTAINER_EXITED]: "exited",
  [ContainerState.CONTAINER_UNKNOWN]: "unknown",
};

/** The process's number and start, by which it is the same. */
export async function pidOf({ runtime }: CriDaemon, containerId: string): Promise<number> {
  const { info } = await runtime.containerStatus({ containerId, verbose: true });
  return Number(JSON.parse(info["info"] ?? "{}").pid ?? 0);
}

/** One who makes and removes pods, one call after another or two at once. */
export class PodWorker {
  readonly #name: string;
  readonly #random: Random;
  /** Of its own: `undefined` for no image but the common one. */
  readonly #image: string;
  readonly #imageState = new Possible<ImagePhase>("absent");
  readonly #pods: Pod[] = [];
  #cri: CriDaemon;
  #made = 0;
  /** Calls that were answered. */
  calls = 0;

  constructor(name: string, cri: CriDaemon, image: string, random: Random) {
    this.#name = name;
    this.#cri = cri;
    this.#image = image;
    this.#random = random;
  }

  /** Goes on until `isOver`. @throws what a call failed with that should not */
  async live(isOver: () => boolean): Promise<void> {
    while (!isOver()) {
      try {
        await this.#random.pick(this.#choices())();
        this.calls += 1;
      } catch (error) {
        if (isOver()) return;
        throw new Error(`${this.#name}: ${error instanceof ConnectError ? error.message : error}`, {
          cause: error,
        });
      }
    }
  }

  #choices(): (() => Promise<unknown>)[] {
    const choices: (() => Promise<unknown>)[] = [() => this.#lists(), () => this.#images()];
    if (this.#pods.length < PODS)
      choices.push(
        () => this.#run(this.#newPod()),
        () => this.#run(this.#newPod()),
      );
    for (const pod of this.#pods) choices.push(...this.#choicesOf(pod));
    return choices;
  }

  #choicesOf(pod: Pod): (() => Promise<unknown>)[] {
    if (pod.state.is("absent")) return [() => this.#run(pod)];
    const choices: (() => Promise<unknown>)[] = [() => this.#removePod(pod)];
    if (!pod.state.is("ready")) return choices;
    choices.push(
      () => this.#stopPod(pod),
      () => this.#race(pod),
    );
    if (pod.containers.length < CONTAINERS)
      for (let often = 0; often < 3; often++) choices.push(() => this.#begin(pod));
    for (const one of pod.containers) {
      if (one.state.is("created"))
        choices.push(
          () => this.#start(one),
          () => this.#start(one),
        );
      if (one.state.is("running"))
        choices.push(
          () => this.#exec(one),
          () => this.#stop(one),
          () => this.#stats(one),
        );
      choices.push(() => this.#remove(one));
    }
    return choices;
  }

  #newPod(): Pod {
    const config = podConfig(this.#cri.daemon, {
      linux: { cgroupParent: cgroupOf(this.#cri.daemon.folder) },
    });
    (config.metadata as { name: string }).name = `${this.#name}-${++this.#made}`;
    const pod: Pod = {
      config,
      state: new Possible<PodPhase>("absent"),
      containers: [],
      ...{ id: undefined, pid: undefined, ip: undefined, ending: false },
    };
    this.#pods.push(pod);
    return pod;
  }

  /** Now and then the same call twice at once, or given up and made again, as a kubelet's that is impatient or was started again. */
  async #often<T>(call: (signal?: AbortSignal) => Promise<T>): Promise<T> {
    const chance = this.#random.below(8);
    if (chance === 0) {
      const [one, other] = await Promise.all([call(), call()]);
      if (!Bun.deepEquals(one, other)) throw new Error("a call that was made twice has two answers");
      return one;
    }
    if (chance === 1) {
      const left = new AbortController();
      const given = call(left.signal);
      setTimeout(() => left.abort(), this.#random.below(300));
      try {
        return await given;
      } catch (error) {
        if (!left.signal.aborted) throw error;
      }
      return await this.#again(call);
    }
    return await call();
  }

  /** A call that was given up may still be undone, or have been done after all: what it has reserved is waited for. */
  async #again<T>(call: () => Promise<T>): Promise<T> {
    for (const deadline = performance.now() + 20_000; ; await Bun.sleep(50)) {
      try {
        return await call();
      } catch (error) {
        if (!/is reserved for|already in removing|in starting state|is in removing/.test(String(error)))
          throw error;
        if (performance.now() > deadline) throw error;
      }
    }
  }

  async #run(pod: Pod): Promise<void> {
    const { runtime } = this.#cri;
    const { config } = pod;
    pod.state.may("ready", "ended");
    pod.id = await this.#often(async (signal) => {
      const found =
        signal === undefined
          ? (await look(this.#cri)).pods.get(keyOf(config.metadata?.name ?? ""))
          : undefined;
      if (found?.ready === true) return found.id;
      // Could not be undone.
      if (found !== undefined) await runtime.removePodSandbox({ podSandboxId: found.id });
      return (await runtime.runPodSandbox({ config }, { ...(signal && { signal }) })).podSandboxId;
    });
    pod.state.set("ready");
    await this.#seePod(pod);
  }

  async #seePod(pod: Pod): Promise<void> {
    const podSandboxId = pod.id ?? "";
    const { status, info } = await this.#cri.runtime.podSandboxStatus({ podSandboxId, verbose: true });
    const pid = Number(JSON.parse(info["info"] ?? "{}").pid ?? 0);
    const ip = status?.network?.ip;
    if (!ip?.startsWith("10.88.")) throw new Error(`pod ${pod.config.metadata?.name} has the address ${ip}`);
    if ((pod.pid ?? pid) !== pid || (pod.ip ?? ip) !== ip)
      throw new Error(`pod ${pod.config.metadata?.name} was ${pod.pid} at ${pod.ip}, and is ${pid} at ${ip}`);
    [pod.pid, pod.ip] = [pid, ip];
    alive(pid);
  }

  async #begin(pod: Pod): Promise<void> {
    const endsByItself = this.#random.below(3) === 0;
    const image = this.#imageState.is("present") && this.#random.below(2) === 0 ? this.#image : BOX_IMAGE;
    const text = endsByItself ? ENDS.replace("$1", String(this.#random.below(10))) : SLEEPS;
    const config = script(`c${++this.#made}`, text, { image: { image } });
    const made: Container = {
      config,
      pod,
      state: new Possible<ContainerPhase>("absent"),
      endsByItself,
      ...{ id: undefined, pid: undefined, started: false, meddled: false },
    };
    pod.containers.push(made);
    await this.#create(made);
    if (this.#random.below(4) > 0) await this.#start(made);
  }

  async #create(one: Container): Promise<void> {
    const { config, pod, state } = one;
    const request = { podSandboxId: pod.id ?? "", config, sandboxConfig: pod.config };
    const name = keyOf(pod.config.metadata?.name ?? "", config.metadata?.name);
    state.may("created", "unknown");
    one.id = await this.#often(async (signal) => {
      const found = signal === undefined ? (await look(this.#cri)).containers.get(name) : undefined;
      return (
        found?.id ??
        (await this.#cri.runtime.createContainer(request, { ...(signal && { signal }) })).containerId
      );
    });
    state.set("created");
  }

  async #start(one: Container): Promise<void> {
    const { id: containerId = "", pod, state, endsByItself } = one;
    // One that was cut off is ended by the next daemon, and told as ended if that is killed amid it.
    state.may("running", "exited");
    await this.#cri.runtime.startContainer({ containerId });
    one.started = true;
    state.set("running");
    if (endsByItself || pod.ending) state.may("exited");
    if (!endsByItself) await this.#see(one);
  }

  /** That a container which runs is the one that was started. */
  async #see(one: Container): Promise<void> {
    const pid = await pidOf(this.#cri, one.id ?? "");
    if (one.pod.ending) return;
    if ((one.pid ?? pid) !== pid) throw new Error(`container ${one.id} was ${one.pid}, and is ${pid}`);
    one.pid = pid;
    alive(pid);
  }

  async #exec({ id: containerId = "", pod }: Container): Promise<void> {
    const said = this.#random.text(8);
    const cmd = ["/bin/sh", "-c", `echo ${said}; exit 3`];
    const { stdout, exitCode } = await this.#cri.runtime.execSync({ containerId, cmd, timeout: 30n });
    if (pod.ending) return;
    if (Buffer.from(stdout).toString() !== `${said}\n` || exitCode !== 3)
      throw new Error(`exec in ${containerId} answered ${exitCode} ${Buffer.from(stdout)}`);
  }

  async #stop(one: Container): Promise<void> {
    const { id: containerId = "", state } = one;
    this.#meddle(one);
    const timeout = BigInt(this.#random.below(3));
    await this.#often((signal) =>
      this.#cri.runtime.stopContainer({ containerId, timeout }, { ...(signal && { signal }) }),
    );
    state.set("exited");
  }

  #meddle(one: Container): void {
    if (one.state.is("created") || one.state.is("absent") || one.state.is("exited")) return;
    one.meddled = true;
    one.state.may("exited");
  }

  async #remove(one: Container): Promise<void> {
    this.#meddle(one);
    one.state.may("absent");
    await this.#again(() => this.#cri.runtime.removeContainer({ containerId: one.id ?? "" }));
    this.#forget(one);
  }

  #forget(one: Container): void {
    one.state.set("absent");
    one.pod.containers.splice(one.pod.containers.indexOf(one), 1);
  }

  async #stopPod(pod: Pod): Promise<void> {
    const podSandboxId = pod.id ?? "";
    pod.state.may("ended");
    for (const one of pod.containers) this.#meddle(one);
    await this.#often((signal) =>
      this.#cri.runtime.stopPodSandbox({ podSandboxId }, { ...(signal && { signal }) }),
    );
    pod.state.set("ended");
    // Not one that is just being made or started.
    for (const one of pod.containers) if (!one.state.can("created")) one.state.set("exited");
  }

  async #removePod(pod: Pod): Promise<void> {
    const podSandboxId = pod.id ?? "";
    pod.state.may("ended", "absent");
    for (const one of pod.containers) {
      this.#meddle(one);
      one.state.may("absent");
    }
    await this.#again(() => this.#cri.runtime.removePodSandbox({ podSandboxId }));
    for (const one of [...pod.containers]) this.#forget(one);
    pod.state.set("absent");
    this.#pods.splice(this.#pods.indexOf(pod), 1);
    rmSync(pod.config.logDirectory, { recursive: true, force: true });
  }

  /** The pod ends while something else is done in it: that may fail, the end may not. */
  async #race(pod: Pod): Promise<void> {
    const others = pod.containers.map(
      (one) => () => (one.state.is("created") ? this.#start(one) : this.#exec(one)),
    );
    const other = this.#random.pick([() => this.#begin(pod), ...others]);
    pod.ending = true;
    const running = other().catch((error: unknown) => {
      if (!(error instanceof ConnectError)) throw error;
    });
    await Bun.sleep(this.#random.below(60));
    await this.#stopPod(pod);
    await running;
    const seen = await look(this.#cri);
    for (const one of [...pod.containers]) {
      if (one.state.is("exited")) continue;
      one.state.may("exited", "absent", "created");
      this.#settleContainer(one, seen);
    }
  }

  async #lists(): Promise<void> {
    const { runtime } = this.#cri;
    const call = this.#random.pick([
      () => runtime.listPodSandboxStats({}),
      () => runtime.listContainerStats({}),
      () => runtime.listPodSandboxMetrics({}),
      () => runtime.status({}),
      () => look(this.#cri),
    ]);
    await call();
  }

  async #stats({ id: containerId = "" }: Container): Promise<void> {
    const { stats } = await this.#cri.runtime.containerStats({ containerId });
    if (stats?.attributes?.id !== containerId)
      throw new Error(`stats of ${containerId} are ${stats?.attributes?.id}'s`);
  }

  async #images(): Promise<void> {
    const images = this.#cri.client(ImageService);
    const image = { image: this.#image };
    const state = this.#imageState;
    const { image: found } = await images.imageStatus({ image });
    state.settle(found === undefined ? "absent" : "present", image.image);
    if (state.is("absent")) {
      state.may("present");
      await this.#often((signal) => images.pullImage({ image }, { ...(signal && { signal }) }));
      state.set("present");
    } else {
      state.may("absent");
      await images.removeImage({ image });
      state.set("absent");
    }
  }

  /** The next daemon is there: what it tells must be what may be. */
  async settle(cri: CriDaemon, seen: Seen): Promise<void> {
    this.#cri = cri;
    const { image } = await cri.client(ImageService).imageStatus({ image: { image: this.#image } });
    this.#imageState.settle(image === undefined ? "absent" : "present", this.#image);
    for (const pod of [...this.#pods]) {
      const name = pod.config.metadata?.name ?? "";
      const found = seen.pods.get(keyOf(name));
      const state = found === undefined ? "absent" : found.ready ? "ready" : "ended";
      pod.state.settle(state, `pod ${name} ${pod.id}`);
      if (pod.id !== undefined && found !== undefined && found.id !== pod.id)
        throw new Error(`pod ${name} was ${pod.id}, and is ${found.id}`);
      pod.id = found?.id;
      for (const one of [...pod.containers]) {
        try {
          this.#settleContainer(one, seen);
        } catch (error) {
          throw new Error(`${error}: ${await this.#told(one)}`);
        }
      }
      if (state === "absent") this.#pods.splice(this.#pods.indexOf(pod), 1);
      if (state === "ready") await this.#seePod(pod);
      for (const one of pod.containers) await this.#seeContainer(one);
    }
  }

  /** What the daemon tells of how it ended. */
  async #told({ id: containerId = "" }: Container): Promise<string> {
    const { status } = await this.#cri.runtime.containerStatus({ containerId });
    return `${status?.exitCode} ${status?.reason} ${status?.message} ${status?.startedAt} ${status?.finishedAt}`;
  }

  #settleContainer(one: Container, seen: Seen): void {
    const name = keyOf(one.pod.config.metadata?.name ?? "", one.config.metadata?.name);
    const found = seen.containers.get(name);
    one.state.settle((found && PHASES[found.state]) ?? "absent", `container ${name} ${one.id}`);
    one.id ??= found?.id;
    if (found === undefined) this.#forget(one);
    // It ends when it likes.
    else if (one.state.is("running") && one.endsByItself) one.state.may("exited");
  }

  async #seeContainer(one: Container): Promise<void> {
    if (one.state.is("running")) await this.#see(one);
    if (!one.state.is("exited")) return;
    const { status } = await this.#cri.runtime.containerStatus({ containerId: one.id ?? "" });
    assertEnd(one, status);
  }

  /** Removes what is left. */
  async end(): Promise<void> {
    for (const pod of [...this.#pods]) await this.#removePod(pod);
    if (this.#imageState.is("present")) await this.#images();
  }
}

function assertEnd(
  { endsByItself, started, meddled, id }: Container,
  status: ContainerStatus | undefined,
): void {
  if (!endsByItself || !started || meddled || status?.exitCode === OWN_END) return;
  throw new Error(
    `container ${id} ended by itself with ${OWN_END}, and is told to with ${status?.exitCode} ${status?.reason} ${status?.message}`,
  );
}

/** @throws ESRCH */
function alive(pid: number): void {
  if (pid === 0) throw new Error("what runs has no process");
  process.kill(pid, 0);
}

/** Of the pods of the daemon in this folder, so that other tests' are not taken for its. */
export function cgroupOf(folder: string): string {
  return `/${join("bkt-pods", folder.slice(-6)).replace("/", "-")}`;
}
