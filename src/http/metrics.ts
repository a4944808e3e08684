import { readdirSync, readFileSync } from "node:fs";
import type { DescMethod } from "@bufbuild/protobuf";
import { type Distribution, MetricsRegistry, type Value, type ValueFamily } from "../lib/metrics.ts";
import type { CallObserver, CallStartObserver, ServiceBinding } from "../transport/registry.ts";

/** One commit of a bolt file. */
export interface CommitObservation {
  /** Functions that it carried. */
  readonly batchSize: number;
  readonly fsyncSeconds: number;
}

export interface MetricsOptions {
  /** `grpc_histogram` of config.toml: latency of each method. */
  readonly histogram: boolean;
  readonly version: string;
  readonly revision: string;
}

export interface DaemonMetrics {
  readonly observeStart: CallStartObserver;
  readonly observeCall: CallObserver;
  /** Lists every method at 0, so that a rate has a start. */
  addServices(bindings: readonly ServiceBinding[]): void;
  observeCommit(commit: CommitObservation): void;
  /** The end of a garbage collection, with its time if it did not fail. */
  observeCollection(workMs: number | undefined): void;
  /** The registry, for families of other rooms. */
  readonly registry: MetricsRegistry;
}

/** Go's prometheus `DefBuckets`, which go-grpc-middleware takes. */
const CALL_BOUNDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];
const BATCH_BOUNDS = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512];
const FSYNC_BOUNDS = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1];

interface MethodMetrics {
  readonly service: string;
  readonly method: string;
  readonly type: string;
  readonly started: Value;
  readonly codes: Map<string, Value>;
  readonly seconds: Distribution | undefined;
}

/** The metrics of `/v1/metrics`, named as containerd's (go-grpc-middleware `providers/prometheus`) where it has the same. */
export function createMetrics(options: MetricsOptions): DaemonMetrics {
  const registry = new MetricsRegistry();
  addBuildInfo(registry, options);
  addProcess(registry);
  const { observeStart, observeCall, addServices } = countCalls(registry, options.histogram);
  const commits = registry.counter("bunkerd_bolt_commits_total", "Commits of the metadata database.");
  const commit = commits.child();
  const batch = registry
    .histogram("bunkerd_bolt_batch_size", "Updates that one commit carried.", BATCH_BOUNDS)
    .child();
  const fsync = registry
    .histogram("bunkerd_bolt_fsync_seconds", "Time of a commit's fsyncs.", FSYNC_BOUNDS)
    .child();
  const collections = registry.counter("containerd_gc_collections_total", "Garbage collections.", ["status"]);
  const [collected, failed] = [collections.child("success"), collections.child("fail")];
  const collection = registry
    .histogram("containerd_gc_gc_seconds", "Time of a garbage collection without its files.", FSYNC_BOUNDS)
    .child();
  return {
    registry,
    observeCollection(workMs) {
      (workMs === undefined ? failed : collected).value++;
      if (workMs !== undefined) collection.observe(workMs / 1000);
    },
    observeStart,
    observeCall,
    addServices,
    observeCommit(observation) {
      commit.value++;
      batch.observe(observation.batchSize);
      fsync.observe(observation.fsyncSeconds);
    },
  };
}

function countCalls(
  registry: MetricsRegistry,
  histogram: boolean,
): Pick<DaemonMetrics, "observeStart" | "observeCall" | "addServices"> {
  const names = ["grpc_type", "grpc_service", "grpc_method"];
  const started = registry.counter(
    "grpc_server_started_total",
    "Total number of RPCs started on the server.",
    names,
  );
  const handled = registry.counter(
    "grpc_server_handled_total",
    "Total number of RPCs completed on the server, regardless of success or failure.",
    [...names, "grpc_code"],
  );
  const seconds = histogram
    ? registry.histogram(
        "grpc_server_handling_seconds",
        "Latency of RPCs until they were completed.",
        CALL_BOUNDS,
        names,
      )
    : undefined;
  const methods = new Map<string, Map<string, MethodMetrics>>();
  const add = (service: string, method: string, type: string): MethodMetrics => {
    const made = {
      service,
      method,
      type,
      started: started.child(type, service, method),
      codes: new Map(),
      seconds: seconds?.child(type, service, method),
    };
    const ofService = methods.get(service);
    if (ofService === undefined) methods.set(service, new Map([[method, made]]));
    else ofService.set(method, made);
    countCode(handled, made, "OK");
    return made;
  };
  // A path that no binding has is one series, whatever the path.
  const unknown = add("unknown", "unknown", "unary");
  return {
    observeStart(service, method) {
      (methods.get(service)?.get(method) ?? unknown).started.value++;
    },
    observeCall({ service, method, code, seconds: took }) {
      const metrics = methods.get(service)?.get(method) ?? unknown;
      const counter = metrics.codes.get(code) ?? countCode(handled, metrics, code);
      counter.value++;
      metrics.seconds?.observe(took);
    },
    addServices(bindings) {
      for (const { service } of bindings) {
        for (const method of service.methods) add(service.typeName, method.name, typeOf(method));
      }
    },
  };
}

function countCode(
  handled: ValueFamily,
  { type, service, method, codes }: MethodMetrics,
  code: string,
): Value {
  const child = handled.child(type, service, method, code);
  codes.set(code, child);
  return child;
}

const TYPES: Readonly<Record<DescMethod["methodKind"], string>> = {
  unary: "unary",
  server_streaming: "server_stream",
  client_streaming: "client_stream",
  bidi_streaming: "bidi_stream",
};

function typeOf(method: DescMethod): string {
  return TYPES[method.methodKind];
}

function addBuildInfo(registry: MetricsRegistry, { version, revision }: MetricsOptions): void {
  const info = registry.counter("containerd_build_info_total", "Containerd build information", [
    "version",
    "revision",
  ]);
  info.child(version, revision).value = 1;
}

const CLOCK_TICKS = 100;
const PAGE_BYTES = 4096;

/** What Prometheus' process collector tells, from procfs (proc(5)); the engine's own notion of memory is not the kernel's. */
function addProcess(registry: MetricsRegistry): void {
  const cpu = registry
    .counter("process_cpu_seconds_total", "Total user and system CPU time spent in seconds.")
    .child();
  const resident = registry.gauge("process_resident_memory_bytes", "Resident memory size in bytes.").child();
  const virtual = registry.gauge("process_virtual_memory_bytes", "Virtual memory size in bytes.").child();
  const heap = registry.gauge("bunkerd_heap_bytes", "Size of live and dead JavaScript objects.").child();
  const files = registry.gauge("process_open_fds", "Number of open file descriptors.").child();
  const maxFiles = registry.gauge("process_max_fds", "Maximum number of open file descriptors.").child();
  const start = registry
    .gauge("process_start_time_seconds", "Start time of the process since unix epoch.")
    .child();
  start.value = Date.now() / 1000 - process.uptime();
  registry.onCollect(() => {
    const stat = readFileSync("/proc/self/stat", "utf8");
    // Fields count from 1, and the third stands behind the last parenthesis.
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    const field = (number: number): number => Number(fields[number - 3]);
    cpu.value = (field(14) + field(15)) / CLOCK_TICKS;
    virtual.value = field(23);
    resident.value = field(24) * PAGE_BYTES;
    heap.value = process.memoryUsage().heapUsed;
    files.value = readdirSync("/proc/self/fd").length;
    const limit = /^Max open files\s+(\d+)/m.exec(readFileSync("/proc/self/limits", "utf8"))?.[1];
    if (limit !== undefined) maxFiles.value = Number(limit);
  });
}
