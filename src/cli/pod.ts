/** `bunkerd pod`: the kubelet's half of the road, on any CRI socket. Each command loads what it needs when it is called. */
import { Command, InvalidArgumentError, Option } from "commander";
import { DEFAULT_ADDRESS } from "../config/address.ts";
import { parseDuration } from "../lib/duration.ts";
import { DEFAULT_LOGS_ROOT, DEFAULT_PODS_ROOT } from "../pod/paths.ts";
import type { ApplyOptions } from "./pod/apply.ts";
import type { DebugOptions } from "./pod/debug.ts";
import type { EndOptions } from "./pod/end.ts";
import type { ExecOptions } from "./pod/exec.ts";
import type { LogsOptions } from "./pod/logs.ts";
import type { OutputFormat, PodOptions } from "./pod/options.ts";
import type { ForwardOptions } from "./pod/port-forward.ts";
import type { RunOptions } from "./pod/run.ts";
import type { ShowOptions } from "./pod/show.ts";

/** What adds which subcommands, in the order of the help. */
const ADDED = [
  [addRun, ["run"]],
  [addApply, ["apply"]],
  [addLists, ["ls", "status"]],
  [addLogs, ["logs"]],
  [addStreams, ["exec", "attach", "port-forward"]],
  [addDebug, ["debug"]],
  [addEnds, ["stop", "rm"]],
] as const;

/** The `pod` command with its subcommands; of these only the one that is called, where that is known: each takes its time. Failures are thrown. */
export function podCommand(called?: string): Command {
  const pod = new Command("pod").description("run pods from YAML on a CRI runtime, as a kubelet would");
  const known = ADDED.find(([, names]) => names.some((name) => name === called));
  for (const [add] of known === undefined ? ADDED : [known]) add(pod);
  for (const command of pod.commands) addCommon(command);
  return pod;
}

function addCommon(command: Command): void {
  command
    .option(
      "-r, --runtime-endpoint <path>",
      `socket of the CRI runtime (default: that of --address, else ${DEFAULT_ADDRESS})`,
    )
    .option("--pods-root <dir>", "where pods' volumes and records lie", DEFAULT_PODS_ROOT)
    .option("--logs-root <dir>", "where containers' logs lie", DEFAULT_LOGS_ROOT)
    .option("-n, --namespace <namespace>", "namespace of pods that name none", "default");
}

/** What commander calls, as arguments and options. */
function calling<A extends readonly unknown[], O extends PodOptions>(
  action: (args: A, options: O) => Promise<void>,
) {
  return async (...all: readonly unknown[]): Promise<void> => {
    const command = all.at(-1) as Command;
    const options = command.optsWithGlobals<O>();
    const runtimeEndpoint = options.runtimeEndpoint ?? options.address ?? DEFAULT_ADDRESS;
    await action(all.slice(0, -2) as unknown as A, { ...options, runtimeEndpoint });
  };
}

function duration(text: string): number {
  const durationMs = parseDuration(text);
  if (durationMs === undefined || durationMs < 0)
    throw new InvalidArgumentError("a duration such as 10s or 1m30s");
  return durationMs;
}

function whole(text: string): number {
  if (!/^\d{1,9}$/.test(text)) throw new InvalidArgumentError("a whole number");
  return Number(text);
}

/** A file may be named again and again. */
function andOthers(file: string, others: readonly string[] = []): string[] {
  return [...others, file];
}

const FILE = [
  "-f, --file <file>",
  "file of YAML or JSON documents: Pods, ConfigMaps, Secrets; - is stdin; several by several -f",
  andOthers,
] as const;
const WHICH = ["-f, --file <file>", "the Pods of a file; - is stdin", andOthers] as const;
const GRACE = [
  "--grace-period <seconds>",
  "instead of the pod's terminationGracePeriodSeconds",
  whole,
] as const;

function output(...formats: readonly OutputFormat[]): Option {
  return new Option("-o, --output <format>", "how it is shown").choices(formats);
}

function addRun(pod: Command): void {
  pod
    .command("run")
    .description(
      "run the pods of a file in the foreground: logs with a prefix, Ctrl-C ends them with their grace",
    )
    .requiredOption(...FILE)
    .option("--rm", "remove the pods when they have ended")
    .option("-q, --quiet", "print no events")
    .addOption(
      new Option("--max-restart-period <duration>", "longest back-off of a container that keeps failing")
        .argParser(duration)
        .default(300_000, "5m"),
    )
    .action(
      calling(async (_args: [], options: RunOptions) => {
        const asked = await (await import("./pod/ask.ts")).askFor(options);
        await (await import("./pod/run.ts")).runPods(options, asked);
      }),
    );
}

function addApply(pod: Command): void {
  pod
    .command("apply")
    .description(
      "start the pods of a file, wait until they run, and leave them to themselves: nobody restarts them",
    )
    .requiredOption(...FILE)
    .option("-q, --quiet", "print no events")
    .addOption(
      new Option("--timeout <duration>", "how long the pods may take to start")
        .argParser(duration)
        .default(300_000, "5m"),
    )
    .action(
      calling(async (_args: [], options: ApplyOptions) => {
        const asked = await (await import("./pod/ask.ts")).askFor(options);
        await (await import("./pod/apply.ts")).applyPods(options, asked);
      }),
    );
}

function addLists(pod: Command): void {
  pod
    .command("ls")
    .description("list pods: bunkerd's and any other that the runtime has")
    .option("-A, --all-namespaces", "of all namespaces")
    .addOption(output("json", "yaml", "wide"))
    .action(
      calling(async (_args: [], options: ShowOptions) => (await import("./pod/show.ts")).listPods(options)),
    );
  pod
    .command("status")
    .description("show a pod with its containers")
    .argument("<POD>")
    .addOption(output("json", "yaml"))
    .action(
      calling(async ([name]: [string], options: ShowOptions) =>
        (await import("./pod/show.ts")).showPod(name, options),
      ),
    );
}

function addLogs(pod: Command): void {
  pod
    .command("logs")
    .description("print what a pod's containers have written")
    .argument("<POD>")
    .argument("[CONTAINER]", "all of them, with a prefix, if it is left out and there are several")
    .option("-c, --container <name>", "the same as the second argument")
    .option("-f, --follow", "go on until the containers have ended")
    .option("-p, --previous", "of the instance before the last restart")
    .option("--since <duration>", "only what is not older, such as 10s or 1h30m", duration)
    .option("--tail <lines>", "only the last lines", whole)
    .option("--timestamps", "with the time of each line")
    .action(
      calling(async ([name, container]: [string, string | undefined], options: LogsOptions) =>
        (await import("./pod/logs.ts")).printLogs(name, container ?? options.container, options),
      ),
    );
}

function addEnds(pod: Command): void {
  pod
    .command("stop")
    .description("end pods with their grace; their logs and states stay")
    .argument("[POD...]")
    .option(...WHICH)
    .option("--all", "all of the namespace that were started by hand")
    .option(...GRACE)
    .action(
      calling(async ([names]: [string[]], options: EndOptions) =>
        (await import("./pod/end.ts")).stopPods(names, options),
      ),
    );
  pod
    .command("rm")
    .description("end pods and remove them with everything that was made for them")
    .argument("[POD...]")
    .option(...WHICH)
    .option("--all", "all of the namespace that were started by hand")
    .option(...GRACE)
    .action(
      calling(async ([names]: [string[]], options: EndOptions) =>
        (await import("./pod/end.ts")).removePods(names, options),
      ),
    );
}

function addStreams(pod: Command): void {
  const container = ["-c, --container <name>", "the pod's first container if it is left out"] as const;
  pod
    .command("exec")
    .description("run a command in a container; exits with its code")
    .argument("<POD>")
    .argument("<COMMAND...>", "behind -- if it has options of its own")
    .option(...container)
    .option("-i, --stdin", "pass stdin on")
    .option("-t, --tty", "on a terminal")
    .action(
      calling(async ([name, words]: [string, string[]], options: ExecOptions) =>
        (await import("./pod/exec.ts")).execInPod(name, words, options),
      ),
    );
  pod
    .command("attach")
    .description("join the streams of a container that runs")
    .argument("<POD>")
    .option(...container)
    .option("-i, --stdin", "pass stdin on")
    .option("-t, --tty", "the container has a terminal")
    .action(
      calling(async ([name]: [string], options: ExecOptions) =>
        (await import("./pod/exec.ts")).attachToPod(name, options),
      ),
    );
  pod
    .command("port-forward")
    .description("pass connections to a local port on to a port of the pod, until Ctrl-C")
    .argument("<POD>")
    .argument(
      "<PORTS...>",
      "LOCAL:REMOTE, REMOTE, or :REMOTE for a local port that is free; REMOTE may be a port's name",
    )
    .option("--bind <address>", "where to listen", "127.0.0.1")
    .action(
      calling(async ([name, ports]: [string, string[]], options: ForwardOptions) =>
        (await import("./pod/port-forward.ts")).forwardPorts(name, ports, options),
      ),
    );
}

function addDebug(pod: Command): void {
  pod
    .command("debug")
    .description("add an ephemeral container to a pod that runs")
    .argument("<POD>")
    .argument("[COMMAND...]", "behind -- if it has options of its own")
    .requiredOption("--image <image>", "its image")
    .option("-c, --container <name>", "its name; one is made if it is left out")
    .option("--target <container>", "container whose processes it sees")
    .option("-i, --stdin", "pass stdin on, and stay until it ends")
    .option("-t, --tty", "with a terminal")
    .option("-q, --quiet", "print no events")
    .action(
      calling(async ([name, words]: [string, string[]], options: DebugOptions) =>
        (await import("./pod/debug.ts")).debug(name, words, options),
      ),
    );
}
