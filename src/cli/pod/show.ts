import { criClient } from "../../client/cri.ts";
import { findPod, findPods } from "../../pod/found.ts";
import { keptEvents } from "../../pod/live.ts";
import { type ContainerView, type PodView, podView } from "../../pod/object.ts";
import { podPaths } from "../../pod/paths.ts";
import { age, table } from "../../pod/table.ts";
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
  const { status } = view;
  const ordinary = status.containerStatuses;
  const all = [...status.initContainerStatuses, ...ordinary];
  const ready = ordinary.filter((each) => each.ready).length;
  const restarts = all.reduce((sum, each) => sum + each.restartCount, 0);
  const since = status.startTime === undefined ? "" : age(Date.parse(status.startTime));
  return [
    namespace,
    name,
    `${ready}/${ordinary.length}`,
    statusWord(view),
    String(restarts),
    since,
    ...(wide ? [status.podIP ?? "<none>", uid] : []),
  ];
}

/** kubectl's STATUS column: `pkg/printers/internalversion`, `printPod`. */
function statusWord({ status }: PodView): string {
  if (status.reason !== undefined) return status.reason;
  const init = status.initContainerStatuses;
  const open = init.findIndex(({ word, started }) => word !== "Completed" && !started);
  if (open >= 0) {
    const { word } = init[open] as ContainerView;
    return word === "ContainerCreating" || word === "Running"
      ? `Init:${open}/${init.length}`
      : `Init:${word}`;
  }
  if (status.phase === "Succeeded") return "Completed";
  const odd = status.containerStatuses.find(({ word }) => !["Running", "Completed"].includes(word));
  return odd?.word ?? (status.phase === "Running" ? "Running" : status.phase);
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
    const rows = events.map(({ type, reason, timeMs, container, message }) => [
      type,
      reason,
      age(timeMs),
      container,
      message,
    ]);
    process.stdout.write(
      `Events:\n${indented(table([["TYPE", "REASON", "AGE", "CONTAINER", "MESSAGE"], ...rows]))}`,
    );
  } finally {
    cri.close();
  }
}

function describe({ word, state }: ContainerView): string {
  const { terminated, waiting } = state as {
    terminated?: { exitCode: number; message?: string };
    waiting?: { message?: string };
  };
  const message = (terminated?.message ?? waiting?.message ?? "").trim().replaceAll("\n", " ");
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
  const { stringify } = await import("yaml");
  process.stdout.write(stringify(value, { aliasDuplicateObjects: false }));
}
