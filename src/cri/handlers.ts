/** What runtimes can do, asked of their shims (`internal/cri/server/service.go`, introspectRuntimeHandler). */
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { AnySchema } from "@bufbuild/protobuf/wkt";
import { RuntimeInfoSchema, RuntimeRequestSchema } from "#gen/containerd/types/introspection_pb.ts";
import {
  type RuntimeHandler,
  type RuntimeHandlerFeatures,
  RuntimeHandlerFeaturesSchema,
  RuntimeHandlerSchema,
} from "#gen/runtime/v1/api_pb.ts";
import type { CriConfig, RuntimeHandlerConfig } from "../config/config.ts";
import type { Logger } from "../lib/log.ts";
import { messageOf } from "../model/errors.ts";
import type { TaskStore } from "../model/tasks.ts";
import type { HostFacts } from "./spec/host.ts";
import { runtimeOptions } from "./spec/runtime-options.ts";

/** What `runc features` says, as far as CRI tells it. */
interface RuntimeFeatures {
  readonly mountOptions?: readonly string[];
  readonly linux?: {
    readonly namespaces?: readonly string[];
    readonly mountExtensions?: { readonly idmap?: { readonly enabled?: boolean } };
  };
}

export interface HandlersDependencies {
  readonly config: CriConfig;
  readonly tasks: TaskStore;
  readonly host: HostFacts;
  readonly logger: Logger;
}

const TIMEOUT_MS = 10_000;

/** By name; the default also under the empty name. One that does not answer has no features. */
export async function readHandlers(
  given: HandlersDependencies,
): Promise<ReadonlyMap<string, RuntimeHandler>> {
  const { runtimes, default_runtime_name: byDefault } = given.config.runtime.containerd;
  const handlers = await Promise.all(
    Object.entries(runtimes).map(async ([name, runtime]) => {
      const features = await featuresOf(given, name, runtime);
      const named = (as: string): [string, RuntimeHandler] => [
        as,
        create(RuntimeHandlerSchema, { name: as, ...(features === undefined ? {} : { features }) }),
      ];
      return name === byDefault ? [named(name), named("")] : [named(name)];
    }),
  );
  return new Map(handlers.flat());
}

async function featuresOf(
  { tasks, host, logger }: HandlersDependencies,
  name: string,
  runtime: RuntimeHandlerConfig,
): Promise<RuntimeHandlerFeatures | undefined> {
  try {
    const { mountOptions = [], linux } = await askRuntime(tasks, runtime);
    const idmap = linux?.mountExtensions?.idmap?.enabled === true;
    return create(RuntimeHandlerFeaturesSchema, {
      recursiveReadOnlyMounts: mountOptions.includes("rro") && atLeast(host, 5, 12),
      userNamespaces: (linux?.namespaces ?? []).includes("user") && idmap,
    });
  } catch (error) {
    logger.debug("failed to introspect features of runtime", { name, error: messageOf(error) });
    return undefined;
  }
}

async function askRuntime(tasks: TaskStore, runtime: RuntimeHandlerConfig): Promise<RuntimeFeatures> {
  const options = runtimeOptions(runtime);
  const request = create(RuntimeRequestSchema, {
    runtimePath: runtime.runtime_path || runtime.runtime_type,
    ...(options === undefined ? {} : { options }),
  });
  const asked = create(AnySchema, {
    typeUrl: RuntimeRequestSchema.typeName,
    value: new Uint8Array(toBinary(RuntimeRequestSchema, request)),
  });
  const answer = await tasks.info(asked, AbortSignal.timeout(TIMEOUT_MS));
  const { features } = fromBinary(RuntimeInfoSchema, answer.value);
  return JSON.parse(new TextDecoder().decode(features?.value)) as RuntimeFeatures;
}

function atLeast({ kernel }: HostFacts, major: number, minor: number): boolean {
  return kernel.major > major || (kernel.major === major && kernel.minor >= minor);
}
