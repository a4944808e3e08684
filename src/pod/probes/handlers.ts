/** One try of each kind of probe: `pkg/probe/{exec,http,tcp,grpc}`. */
import type { CriClient } from "../../client/cri.ts";
import { isError } from "../../model/errors.ts";
import type { Container } from "../api/container.ts";
import type { Probe } from "../api/handlers.ts";
import { httpHeaders, httpUrl, portNumber } from "../hooks.ts";
import { expand } from "../spec/expansion.ts";
import { dialWords, failure, type Outcome } from "./outcome.ts";

export interface ProbeTarget {
  readonly cri: CriClient;
  readonly container: Container;
  readonly containerId: string;
  readonly podIp: string;
}

const MAX_OUTPUT_BYTES = 10 * 1024;
const MAX_REDIRECTS = 10;

/** @throws Error if it cannot be told whether the container is well */
export function tryProbe(target: ProbeTarget, probe: Probe): Promise<Outcome> {
  if (probe.exec !== undefined) return execProbe(target, probe.exec.command ?? [], probe.timeoutSeconds);
  if (probe.httpGet !== undefined) return httpProbe(target, probe.httpGet, probe.timeoutSeconds * 1000);
  if (probe.tcpSocket !== undefined) {
    const { host, port } = probe.tcpSocket;
    const address = host === undefined || host === "" ? target.podIp : host;
    return import("./tcp.ts").then(({ tcpProbe }) =>
      tcpProbe(address, portNumber(port, target.container), probe.timeoutSeconds * 1000),
    );
  }
  if (probe.grpc !== undefined)
    return import("./grpc.ts").then(({ grpcProbe }) =>
      grpcProbe(target.podIp, probe, probe.timeoutSeconds * 1000),
    );
  throw new Error(`missing probe handler for ${target.container.name}`);
}

async function execProbe(
  { cri, container, containerId }: ProbeTarget,
  command: readonly string[],
  timeoutSeconds: number,
): Promise<Outcome> {
  const env = new Map((container.env ?? []).map(({ name, value }) => [name, value]));
  const words = command.map((word) => expand(word, (name) => env.get(name)));
  try {
    const { exitCode, stdout, stderr } = await cri.execSync(containerId, words, timeoutSeconds);
    const output = Buffer.concat([stdout, stderr]).subarray(0, MAX_OUTPUT_BYTES).toString();
    return exitCode === 0 ? { result: "success", output } : failure(output);
  } catch (error) {
    if (!isError(error, "DeadlineExceeded")) throw error;
    return failure(
      `command timed out: ${JSON.stringify(words.join(" "))} timed out after ${timeoutSeconds}s`,
    );
  }
}

async function httpProbe(
  { container, podIp }: ProbeTarget,
  get: NonNullable<Probe["httpGet"]>,
  timeoutMs: number,
): Promise<Outcome> {
  const first = httpUrl(get, container, podIp);
  const headers = httpHeaders(get, "kube-probe/bunkerd");
  headers.set("connection", "close");
  const signal = AbortSignal.timeout(timeoutMs);
  let url = new URL(first);
  try {
    for (let hop = 0; ; hop++) {
      const response = await fetch(url, {
        headers,
        signal,
        redirect: "manual",
        tls: { rejectUnauthorized: false },
      });
      const body = Buffer.from(await response.arrayBuffer())
        .subarray(0, MAX_OUTPUT_BYTES)
        .toString();
      const location = response.headers.get("location");
      if (response.status < 200 || response.status >= 400)
        return failure(`HTTP probe failed with statuscode: ${response.status}`);
      if (response.status < 300 || location === null) return { result: "success", output: body };
      const next = new URL(location, url);
      if (next.hostname !== url.hostname)
        return { result: "warning", output: `Probe terminated redirects, Response body: ${body}` };
      if (hop === MAX_REDIRECTS)
        return failure(`Get ${JSON.stringify(first)}: stopped after ${MAX_REDIRECTS} redirects`);
      url = next;
    }
  } catch (error) {
    const reason = signal.aborted
      ? "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
      : `dial tcp ${url.hostname}:${url.port}: ${dialWords(error)}`;
    return failure(`Get ${JSON.stringify(first)}: ${reason}`);
  }
}
