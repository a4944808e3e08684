import type { MessageInitShape } from "@bufbuild/protobuf";
import {
  Health,
  HealthCheckResponse_ServingStatus,
  type HealthCheckResponseSchema,
} from "#gen/grpc/health/v1/health_pb.ts";
import { BunkerdError } from "../model/errors.ts";
import { bind, type ServiceBinding } from "./registry.ts";

export type ServingStatus = "serving" | "notServing" | "unknown";

type Response = MessageInitShape<typeof HealthCheckResponseSchema>;

const STATUSES = {
  unknown: HealthCheckResponse_ServingStatus.UNKNOWN,
  serving: HealthCheckResponse_ServingStatus.SERVING,
  notServing: HealthCheckResponse_ServingStatus.NOT_SERVING,
} as const;

/** grpc-go's `health/server.go`, `maxAllowedServices`. */
const MAX_LISTED = 100;

/** The state that `grpc.health.v1` tells. The empty service name stands for the whole daemon, which begins as serving. */
export class HealthStatus {
  readonly #statuses = new Map<string, ServingStatus>([["", "serving"]]);
  readonly #watchers = new Set<() => void>();

  /** Watchers of the service hear of it; of several changes in one tick they hear the last. */
  set(service: string, status: ServingStatus): void {
    this.#statuses.set(service, status);
    this.#changed();
  }

  /** What a daemon says before it goes: nothing is served any more. */
  shutdown(): void {
    for (const service of this.#statuses.keys()) this.#statuses.set(service, "notServing");
    this.#changed();
  }

  get(service: string): ServingStatus | undefined {
    return this.#statuses.get(service);
  }

  entries(): Iterable<readonly [service: string, status: ServingStatus]> {
    return this.#statuses.entries();
  }

  /** Calls that wait in {@link nextChange}. */
  get waiting(): number {
    return this.#watchers.size;
  }

  /** Resolves at the next change of any service, or when the signal is aborted. */
  nextChange(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const done = (): void => {
        this.#watchers.delete(done);
        signal.removeEventListener("abort", done);
        resolve();
      };
      this.#watchers.add(done);
      signal.addEventListener("abort", done);
    });
  }

  #changed(): void {
    for (const watcher of [...this.#watchers]) watcher();
  }
}

/** `grpc.health.v1.Health`: Check, List and Watch, with the codes of grpc-go's `health/server.go`. */
export function healthBinding(health: HealthStatus): ServiceBinding<typeof Health> {
  return bind(Health, {
    check({ service }) {
      const status = health.get(service);
      if (status === undefined) throw new BunkerdError("NotFound", "unknown service");
      return { status: STATUSES[status] };
    },
    list() {
      const statuses = [...health.entries()];
      if (statuses.length > MAX_LISTED) {
        throw new BunkerdError(
          "ResourceExhausted",
          `server health list exceeds maximum capacity: ${MAX_LISTED}`,
        );
      }
      return {
        statuses: Object.fromEntries(
          statuses.map(([service, status]) => [service, { status: STATUSES[status] }]),
        ),
      };
    },
    async *watch({ service }, { signal }): AsyncGenerator<Response> {
      let told: ServingStatus | "serviceUnknown" | undefined;
      while (!signal.aborted) {
        const status = health.get(service) ?? "serviceUnknown";
        if (status !== told) {
          told = status;
          const unknown = HealthCheckResponse_ServingStatus.SERVICE_UNKNOWN;
          yield { status: status === "serviceUnknown" ? unknown : STATUSES[status] };
        } else {
          await health.nextChange(signal);
        }
      }
    },
  });
}
