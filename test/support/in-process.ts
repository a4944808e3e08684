/** Services called as a client would, without a socket: messages are encoded, errors become statuses. */
import type { DescService } from "@bufbuild/protobuf";
import type { CallOptions, Client } from "@connectrpc/connect";
import { createClient, createRouterTransport } from "@connectrpc/connect";
import { silentLogger } from "../../src/lib/log.ts";
import { calls } from "../../src/transport/connect/call.ts";
import type { ServiceBinding } from "../../src/transport/registry.ts";

export function inProcessClient<S extends DescService>(binding: ServiceBinding<S>): Client<S> {
  const transport = createRouterTransport(
    ({ service }) => service(binding.service as DescService, binding.implementation),
    { router: { interceptors: [calls(silentLogger)] } },
  );
  return createClient(binding.service, transport);
}

/** Headers of a call in a namespace, under a lease if there is one. */
export function scoped(namespace: string, lease?: string): CallOptions {
  const headers: Record<string, string> = { "containerd-namespace": namespace };
  if (lease !== undefined) headers["containerd-lease"] = lease;
  return { headers };
}
