import { criClient } from "../../client/cri.ts";
import type { PodEvent } from "../../pod/events.ts";
import { findPod, findPods } from "../../pod/found.ts";
import { keptEvents } from "../../pod/live.ts";
import { type ContainerView, type PodView, podView } from "../../pod/object.ts";
import { podPaths } from "../../pod/paths.ts";
import { podColumns } from "../../pod/row.ts";
import { damagedRecords } from "../../pod/store.ts";
import { age, oneLine, table } from "../../pod/table.ts";
import { type OutputFormat, type PodOptions, rootsOf } from "./options.ts";

export interface ShowOptions extends PodOptions {
  readonly output?: OutputFormat;
  readonly allNamespaces?: boolean;
}

export async function listPods(options: ShowOptions): Promise<void> {
  const cri = criClient(options.runtimeEndpoint);
  try {
    const namespace = options.allNamespaces === true ? undefined : options.namespace;
    const [found, { runtimeName }] = await Promise.all([
      findPods(cri, rootsOf(options), namespace),
      cri.version(),
    ]);
    for (const damaged of damagedRecords(rootsOf(options)))
      process.stderr.write(`bunkerd: ${damaged.message}\n`);
    const views = found.map((each) => podView(each, rootsOf(options), runtimeName));
    if (options.output === "json" || options.output === "yaml") {
      await write({ apiVersion: "v1", kind: "List", items: views.map(plain) }, options.output);
      return;
    }
    const wide = options.output === "wide";
    const head = ["NAMESPACE", "NAME", "READY", "STATUS", "RESTARTS", "AGE", ...(wide ? ["IP", "UID"] : [])];
    const rows = views.map((view) => rowOf(view, wide));
    process.stdout.write(table([head, ...rows]));
  } finally {
    cri.close();
  }
}

interface Metadata {
  readonly namespace: string;
  readonly name: string;
  readonly uid: string;
}

function rowOf(view: PodView, wide: boolean): string[] {
  const { namespace, name, uid } = view.metadata as Metadata;
  const { ready, status, restarts } = podColumns(view);
  const { startTime, podIP = "<none>" } = view.status;
  const since = startTime === undefined ? "" : age(Date.parse(startTime));
  return [namespace, name, ready, status, restarts, since, ...(wide ? [podIP, uid] : [])];
}

export async function showPod(name: string, options: ShowOptions): Promise<void> {
  const cri = criClient(options.runtimeEndpoint);
  try {
    const [found, { runtimeName }] = await Promise.all([
      findPod(cri, rootsOf(options), options.namespace, name),
      cri.version(),
    ]);
    const view = podView(found, rootsOf(options), runtimeName);
    if (options.output === "json" || options.output === "yaml") {
      await write(plain(view), options.output);
      return;
    }
    const { namespace, uid } = view.metadata as Metadata;
    const { status } = view;
    const facts = [
      ["Name:", name],
      ["Namespace:", namespace],
      ["UID:", uid],
      ["Status:", status.reason === undefined ? status.phase : `${status.phase} (${status.reason})`],
      ["QoS Class:", status.qosClass],
      ["IP:", status.podIP ?? "<none>"],
    ];
    process.stdout.write(table(facts));
    const sections = [
      ["Init Containers", status.initContainerStatuses],
      ["Containers", status.containerStatuses],
      ["Ephemeral Containers", status.ephemeralContainerStatuses],
    ] as const;
    for (const [title, containers] of sections) {
      if (containers.length === 0) continue;
      const head = ["NAME", "STATE", "READY", "RESTARTS", "IMAGE"];
      const rows = containers.map((each) => [
        each.name,
        describe(each),
        String(each.ready),
        String(each.restartCount),
        each.image,
      ]);
      process.stdout.write(`${title}:\n${indented(table([head, ...rows]))}`);
    }
    const events = keptEvents(podPaths(rootsOf(options), found.pod.metadata));
    if (events.length === 0) return;
    const rows = gathered(events).map(({ first, last, times }) => [
      last.type,
      last.reason,
      times === 1 ? age(last.timeMs) : `${age(last.timeMs)} (x${times} over ${age(first.timeMs)})`,
      last.container,
      oneLine(last.message),
    ]);
    process.stdout.write(
      `Events:\n${indented(table([["TYPE", "REASON", "AGE", "CONTAINER", "MESSAGE"], ...rows]))}`,
    );
  } finally {
    cri.close();
  }
}

/** What was told again and again in one line, where it was told last: kubectl's `describe` shows what the API server has gathered. */
function gathered(events: readonly PodEvent[]): { first: PodEvent; last: PodEvent; times: number }[] {
  const lines = new Map<string, { first: PodEvent; last: PodEvent; times: number }>();
  for (const event of events) {
    const { type, reason, container, message } = event;
    const key = JSON.stringify([type, reason, container, message]);
    const { first = event, times = 0 } = lines.get(key) ?? {};
    lines.delete(key);
    lines.set(key, { first, last: event, times: times + 1 });
  }
  return [...lines.values()];
}

function describe({ word, state }: ContainerView): string {
  const { terminated, waiting } = state as {
    terminated?: { exitCode: number; message?: string };
    waiting?: { message?: string };
  };
  const message = oneLine(terminated?.message ?? waiting?.message ?? "");
  const code = terminated === undefined ? "" : ` (exit code ${terminated.exitCode})`;
  return `${word}${code}${message === "" ? "" : `: ${message}`}`;
}

function indented(text: string): string {
  return text.replace(/^(?=.)/gm, "  ");
}

/** Without what is only there for the tables. */
function plain(view: PodView): object {
  const bare = (containers: readonly ContainerView[]): object[] =>
    containers.map(({ word: _word, ...rest }) => rest);
  const { status } = view;
  return {
    ...view,
    status: {
      ...status,
      initContainerStatuses: bare(status.initContainerStatuses),
      containerStatuses: bare(status.containerStatuses),
      ephemeralContainerStatuses: bare(status.ephemeralContainerStatuses),
    },
  };
}

async function write(value: object, format: "json" | "yaml"): Promise<void> {
  if (format === "json") {
    process.stdout.write(`${JSON.stringify(value, undefined, 2)}\n`);
    return;
  }
  const { writeDocument } = await import("../../pod/api/documents.ts");
  process.stdout.write(writeDocument(value));
}
