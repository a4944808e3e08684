import { chmodSync, mkdirSync, writeFileSync } from "node:fs";
import { isAbsolute, join, normalize } from "node:path";
import { create } from "@bufbuild/protobuf";
import { TaskDeleteSchema } from "#gen/containerd/events/task_pb.ts";
import type { Config } from "../config/config.ts";
import type { Exchange } from "../events/exchange.ts";
import type { Clock } from "../lib/clock.ts";
import type { Logger } from "../lib/log.ts";
import { CgroupLock } from "../linux/cgroup-lock.ts";
import type { Metadata } from "../metadata/metadata.ts";
import type { Differ } from "../model/diff.ts";
import { BunkerdError } from "../model/errors.ts";
import { type Platform, platformOf } from "../model/platforms.ts";
import { recoverShims } from "../runtime/recovery.ts";
import { ShimSandboxes } from "../runtime/sandboxes.ts";
import { Shims } from "../runtime/shims.ts";
import { type TaskStatistics, taskStatistics } from "../runtime/task-statistics.ts";
import { Tasks, type TasksDependencies } from "../runtime/tasks.ts";
import { type Parts, PluginType } from "./parts.ts";
import { compilingLater } from "./patience.ts";

export interface RuntimeParts {
  readonly parts: Parts;
  readonly config: Config;
  readonly logger: Logger;
  readonly clock: Clock;
  readonly exchange: Exchange | undefined;
  readonly metadata: Metadata | undefined;
  /** Of the diff service, in its order. */
  readonly differs: readonly Differ[];
  readonly version: string;
  readonly stack: AsyncDisposableStack;
}

const TASK_FOLDER = `${PluginType.runtime}.task`;
/** Bundles of containers in user namespaces lie below. */
const PASSABLE_MODE = 0o711;
/** containerd's own, whatever its state folder: `core/runtime/v2/shim_unix.go`. */
const DEFAULT_SOCKET_DIR = "/run/containerd/s";
/** A shim's socket has a name of 64 characters, and sun_path takes 107 (`socket_linux.go`). */
const MAX_SOCKET_DIR_BYTES = 107 - 64 - 1;

export interface Runtime {
  readonly tasks: Tasks | undefined;
  /** Sandboxes that are their shims' business. */
  readonly sandboxes: ShimSandboxes | undefined;
  /** What all tasks use just now. */
  readonly measure: (() => Promise<TaskStatistics[]>) | undefined;
}

/** What runs containers, with those that an earlier daemon left running. @throws InvalidArgument on a setting */
export async function startRuntime(given: RuntimeParts): Promise<Runtime> {
  const { parts, config, logger, clock, exchange, metadata, stack } = given;
  const folders = { state: join(config.state, TASK_FOLDER), root: join(config.root, TASK_FOLDER) };
  const shims = await parts.start(
    { type: PluginType.shim, id: "manager" },
    { exchange, metadata },
    (needed) => {
      const { containers, sandboxes } = needed.metadata;
      const settings = shimSettings(given);
      const options = { folders, settings, timeouts: config.runtime.timeouts };
      const built = new Shims(options, { containers, sandboxes, publisher: needed.exchange, clock, logger });
      stack.defer(() => built.close());
      return built;
    },
  );
  const platforms = config.runtime.platforms.map(parsePlatform);
  const exports = { "log-uri-schemes": "fifo,binary,binary-v2,file" };
  const name = { type: PluginType.runtime, id: "task", exports, platforms, informs: true };
  const tasks = await parts.start(name, { shims, metadata }, async (needed) => {
    for (const folder of [folders.root, folders.state])
      mkdirSync(folder, { recursive: true, mode: PASSABLE_MODE });
    const { containers, sandboxes } = needed.metadata;
    await recoverShims({ shims: needed.shims, containers, sandboxes, logger });
    const [differ] = given.differs;
    const checkpoints = differ && { content: needed.metadata.content, differ };
    const deletionTold = deletionsOn(exchange);
    const also = { checkpoints, deletionTold, cgroupLock: compilingLater(new CgroupLock()) };
    return new Tasks({ containers, shims: needed.shims, ...also, clock, logger });
  });
  const sandboxes = await parts.start(
    { type: PluginType.sandboxController, id: "shim" },
    { shims, exchange },
    (needed) => new ShimSandboxes({ shims: needed.shims, clock }),
  );
  const service = { type: PluginType.service, id: "tasks-service" };
  const served = await parts.start(service, { tasks, metadata, exchange }, (needed) => needed.tasks);
  return { tasks: served, sandboxes, measure: measureOf(given, shims) };
}

function measureOf({ metadata, config, logger }: RuntimeParts, shims: Shims | undefined): Runtime["measure"] {
  if (shims === undefined || metadata === undefined) return undefined;
  const { containers } = metadata;
  return () => taskStatistics({ shims, containers, timeoutMs: config.runtime.timeouts.shimStatsMs, logger });
}

/** Tells when the event of a task's deletion has come by; nothing as long as nobody listens. */
function deletionsOn(exchange: Exchange | undefined): TasksDependencies["deletionTold"] {
  return (namespace, id, signal) => {
    const event = create(TaskDeleteSchema, { containerId: id });
    if (exchange?.reaches(namespace, "/tasks/delete", TaskDeleteSchema, event) !== true) return undefined;
    const filter = `topic=="/tasks/delete",namespace==${namespace},event.container_id=="${id}"`;
    const events = exchange.subscribe([filter], signal);
    // The exchange may be closed meanwhile, by the daemon's end.
    return events.next().catch(() => undefined);
  };
}

function shimSettings({ config, version }: RuntimeParts) {
  return {
    address: config.grpc.address,
    ttrpcAddress: config.ttrpc.address,
    publishBinary: publishBinary(config.state),
    version,
    socketDir: socketDir(config.runtime.socketDir),
    env: config.runtime.shimEnv,
    debug: config.logLevel === "debug" || config.logLevel === "trace",
  };
}

/** @throws InvalidArgument */
function socketDir(setting: string): string {
  if (setting === "") return process.geteuid?.() === 0 ? DEFAULT_SOCKET_DIR : "";
  if (!isAbsolute(setting)) {
    throw new BunkerdError(
      "InvalidArgument",
      `socket_dir must be an absolute path: ${JSON.stringify(setting)}`,
    );
  }
  const path = normalize(setting).replace(/(?<=.)\/$/, "");
  if (Buffer.byteLength(path) > MAX_SOCKET_DIR_BYTES) {
    const rule = `socket_dir length must be no longer than ${MAX_SOCKET_DIR_BYTES} characters`;
    throw new BunkerdError("InvalidArgument", rule);
  }
  return path;
}

/** What shims call to publish: our own executable, or from source a script that calls it as one. */
function publishBinary(state: string): string {
  if (Bun.main.startsWith("/$bunfs/")) return process.execPath;
  const path = join(state, "publish");
  writeFileSync(path, `#!/bin/sh\nexec ${quoted(process.execPath)} ${quoted(Bun.main)} "$@"\n`);
  chmodSync(path, 0o755);
  return path;
}

function quoted(word: string): string {
  return `'${word.replaceAll("'", "'\\''")}'`;
}

function parsePlatform(text: string): Platform {
  const [os = "", architecture = "", variant = ""] = text.split("/");
  return platformOf(os, architecture, variant);
}
