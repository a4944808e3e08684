import { readFileSync } from "node:fs";
import type { Config } from "../config/config.ts";
import { Endpoint, parseTcpAddress } from "../http/endpoint.ts";
import type { DaemonMetrics } from "../http/metrics.ts";
import { debugPages, metricsPages } from "../http/pages.ts";
import type { Logger } from "../lib/log.ts";
import { BunkerdError, messageOf } from "../model/errors.ts";
import type { ListenAddress, TlsFiles } from "../transport/listen.ts";
import { Listener } from "../transport/listener.ts";
import type { ServiceBinding, TransportOptions } from "../transport/registry.ts";
import type { UnixAddress } from "../transport/socket-path.ts";
import { TtrpcServer } from "../transport/ttrpc/server.ts";
import { type Parts, PluginType } from "./parts.ts";

export interface ListenersDependencies {
  readonly parts: Parts;
  readonly config: Config;
  readonly logger: Logger;
  readonly bindings: readonly ServiceBinding[];
  readonly ttrpcBindings: readonly ServiceBinding[];
  readonly metrics: DaemonMetrics | undefined;
  /** True between the start's end and the stop's begin. */
  readonly ready: () => boolean;
  readonly state: () => unknown;
}

const server = (id: string, address: string) => ({ type: PluginType.server, id, exports: { address } });

/** Opens the metrics and debug endpoints, then the addresses of the API. @throws AlreadyExists, InvalidArgument naming the address */
export async function startListeners(
  dependencies: ListenersDependencies,
  opened: (closable: { close(drainMs: number): Promise<void> }) => void,
): Promise<{ readonly openCalls: number }[]> {
  const { parts, config, logger, metrics } = dependencies;
  const started: Started = async (one) => {
    await one.start();
    opened(one);
    return one;
  };
  if (metrics !== undefined) {
    const { address } = config.metrics;
    const pages = metricsPages(metrics.registry, dependencies.ready);
    await parts.start(server("metrics", address), {}, () =>
      started(new Endpoint(parseTcpAddress(address), { name: "metrics", pages, logger })),
    );
  }
  const { debug } = config;
  if (debug.address !== "") {
    const pages = debugPages(dependencies.state);
    await parts.start(server("debug", debug.address), {}, () =>
      started(new Endpoint(addressOf(debug), { name: "debug", pages, logger })),
    );
  }
  // Whoever sees the gRPC socket may count on the others.
  const ttrpc = await startTtrpc(dependencies, started);
  const tcp = await startTcp(dependencies, started);
  const unix = await startUnix(dependencies, started);
  return [ttrpc, tcp, unix].filter((listener) => listener !== undefined);
}

type Started = <T extends { start(): Promise<void>; close(drainMs: number): Promise<void> }>(
  one: T,
) => Promise<T>;

/** containerd's `plugins/server/ttrpc/plugin.go`. */
async function startTtrpc(
  dependencies: ListenersDependencies,
  started: Started,
): Promise<TtrpcServer | undefined> {
  const { parts, config, logger, ttrpcBindings: bindings } = dependencies;
  const { address, uid, gid } = config.ttrpc;
  const name = server("ttrpc", address);
  if (address !== "" && bindings.length > 0) {
    return await parts.start(name, {}, () =>
      started(new TtrpcServer({ path: address, uid, gid }, { bindings, logger })),
    );
  }
  parts.skip(name, address === "" ? "no address" : "no ttrpc services configured");
  return undefined;
}

async function startTcp(
  dependencies: ListenersDependencies,
  started: Started,
): Promise<Listener | undefined> {
  const { parts, config } = dependencies;
  const { address, tls } = config.grpcTcp;
  if (address === "") return undefined;
  const where = { ...parseTcpAddress(address), tls: tlsOf(address, tls) };
  return await parts.start(server("grpc-tcp", address), {}, () =>
    started(createListener(where, config.grpcTcp, dependencies)),
  );
}

/**
 * containerd's `plugins/server/grpc/plugin.go`; but an authority without a certificate, which is a port without TLS there, is an error.
 * @throws InvalidArgument naming the address and the file
 */
function tlsOf(address: string, { cert, key, ca }: Config["grpcTcp"]["tls"]): TlsFiles | undefined {
  if (cert === "" && key === "" && ca === "") return undefined;
  const invalid = (what: string) => new BunkerdError("InvalidArgument", `grpc-tcp ${address}: ${what}`);
  if (cert === "" || key === "") throw invalid("TLS needs both tls_cert and tls_key");
  const read = (setting: string, path: string): string => {
    try {
      return readFileSync(path, "utf8");
    } catch (error) {
      throw invalid(`${setting}: ${messageOf(error)}`);
    }
  };
  const files = { cert: read("tls_cert", cert), key: read("tls_key", key) };
  return ca === "" ? files : { ...files, ca: read("tls_ca", ca) };
}

async function startUnix(
  dependencies: ListenersDependencies,
  started: Started,
): Promise<Listener | undefined> {
  const { parts, config } = dependencies;
  const { grpc } = config;
  const path: UnixAddress = { path: grpc.address, uid: grpc.uid, gid: grpc.gid };
  return await parts.start(server("grpc", grpc.address), {}, () =>
    started(createListener(path, grpc, dependencies)),
  );
}

function createListener(
  address: ListenAddress,
  sizes: { readonly maxReceiveBytes: number; readonly maxSendBytes: number },
  dependencies: ListenersDependencies,
): Listener {
  const { bindings, logger, metrics } = dependencies;
  const options: TransportOptions = {
    bindings,
    logger,
    limits: { maxReceiveBytes: sizes.maxReceiveBytes, maxSendBytes: sizes.maxSendBytes },
    ...(metrics === undefined ? {} : { observe: metrics.observeCall, observeStart: metrics.observeStart }),
  };
  return new Listener(address, options);
}

/** A path is a unix socket, anything else `host:port`, as containerd's debug address. */
function addressOf({ address, uid, gid }: Config["debug"]): ListenAddress {
  return address.startsWith("/") ? { path: address, uid, gid } : parseTcpAddress(address);
}
