import { Events } from "#gen/containerd/services/events/ttrpc/v1/events_pb.ts";
import type { Exchange } from "../events/exchange.ts";
import type { ServiceBinding } from "../transport/registry.ts";
import { bind } from "../transport/registry.ts";
import { forward } from "./events.ts";

/** containerd.services.events.ttrpc.v1.Events, what shims bring their events home by: `plugins/services/events/ttrpc.go`. */
export function ttrpcEventsService(dependencies: {
  readonly exchange: Exchange;
}): ServiceBinding<typeof Events> {
  return bind(Events, {
    forward({ envelope }) {
      forward(dependencies.exchange, envelope);
      return {};
    },
  });
}
