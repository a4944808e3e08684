/** Post-start and pre-stop hooks: `pkg/kubelet/lifecycle/handlers.go`. */
import { setTimeout as delay } from "node:timers/promises";
import type { CriClient } from "../client/cri.ts";
import { messageOf } from "../model/errors.ts";
import type { Container } from "./api/container.ts";
import type { HttpGet, LifecycleHandler } from "./api/handlers.ts";
import type { Pod } from "./api/pod.ts";
import { podText } from "./spec/security.ts";

export interface HookInput {
  readonly cri: CriClient;
  readonly pod: Pod;
  readonly container: Pick<Container, "name" | "ports">;
  readonly containerId: string;
  readonly podIp: string;
  /** Aborted when nobody waits for the hook any longer. */
  readonly signal: AbortSignal;
}

/** Runs a hook to its end. @throws Error in the kubelet's words */
export async function runHook(input: HookInput, handler: LifecycleHandler): Promise<void> {
  const { container, pod, signal } = input;
  const place = `for Container ${JSON.stringify(container.name)} in Pod ${JSON.stringify(podText(pod))} failed - error:`;
  if (handler.exec !== undefined) {
    const command = handler.exec.command ?? [];
    await abortable(
      execHook(input, command, `Exec lifecycle hook ([${command.join(" ")}]) ${place}`),
      signal,
    );
  } else if (handler.httpGet !== undefined) {
    try {
      await httpHook(input, handler.httpGet);
    } catch (error) {
      throw new Error(`HTTP lifecycle hook (${handler.httpGet.path}) ${place} ${messageOf(error)}`, {
        cause: error,
      });
    }
  } else if (handler.sleep !== undefined) await delay(handler.sleep.seconds * 1000, undefined, { signal });
}

async function execHook(
  { cri, containerId }: HookInput,
  command: readonly string[],
  place: string,
): Promise<void> {
  let answer: Awaited<ReturnType<CriClient["execSync"]>>;
  try {
    answer = await cri.execSync(containerId, command, 0);
  } catch (error) {
    throw new Error(`${place} ${messageOf(error)}, message: ""`, { cause: error });
  }
  if (answer.exitCode === 0) return;
  const stderr = Buffer.from(answer.stderr).toString();
  const output = Buffer.concat([answer.stdout, answer.stderr]).toString();
  const error = `command '${command.join(" ")}' exited with ${answer.exitCode}: ${stderr}`;
  throw new Error(`${place} ${error}, message: ${JSON.stringify(output)}`);
}

async function httpHook({ container, podIp, signal }: HookInput, get: HttpGet): Promise<void> {
  const url = httpUrl(get, container, podIp);
  const headers = httpHeaders(get, "kube-lifecycle/bunkerd");
  // Certificates are not checked, as by kubelets: the pod is the other end.
  const response = await fetch(url, {
    headers,
    signal,
    redirect: "manual",
    tls: { rejectUnauthorized: false },
  });
  await response.arrayBuffer();
}

/** @throws Error if the port is a name that the container does not have */
export function httpUrl(get: HttpGet, container: Pick<Container, "name" | "ports">, podIp: string): string {
  const host = get.host === undefined || get.host === "" ? podIp : get.host;
  const port = portNumber(get.port, container);
  const path = get.path.startsWith("/") ? get.path : `/${get.path}`;
  return `${get.scheme.toLowerCase()}://${host.includes(":") ? `[${host}]` : host}:${port}${path}`;
}

export function httpHeaders({ httpHeaders: own = [] }: HttpGet, agent: string): Headers {
  const headers = new Headers(own.map(({ name, value }) => [name, value] as [string, string]));
  if (!headers.has("user-agent")) headers.set("user-agent", agent);
  if (!headers.has("accept")) headers.set("accept", "*/*");
  return headers;
}

export function portNumber(
  port: number | string,
  { name, ports = [] }: Pick<Container, "name" | "ports">,
): number {
  if (typeof port === "number") return port;
  const found = ports.find((each) => each.name === port);
  if (found === undefined)
    throw new Error(`couldn't find port: ${JSON.stringify(port)} in container ${name}`);
  return found.containerPort;
}

/** The work's end, or the signal's abort if that comes first; the work goes on unheard. */
export function abortable<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const give = (): void => reject(signal.reason as Error);
    if (signal.aborted) give();
    signal.addEventListener("abort", give, { once: true });
    void work.then(resolve, reject).finally(() => signal.removeEventListener("abort", give));
  });
}
