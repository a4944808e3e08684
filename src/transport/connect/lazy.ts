import type { HttpHandler } from "../listener.ts";
import type { TransportOptions } from "../registry.ts";

/** Connect's handlers, loaded at the first request that is no gRPC: most daemons never see one, and start 10 ms sooner. */
export function lazyConnectHandler(options: TransportOptions): HttpHandler {
  let loading: Promise<HttpHandler> | undefined;
  const load = (): Promise<HttpHandler> => {
    loading ??= import("./handler.ts").then(({ createConnectHandler }) => createConnectHandler(options));
    return loading;
  };
  return {
    handleUniversal: async (request) => (await load()).handleUniversal(request),
    handleHttp1(request, response) {
      void load().then((handler) => handler.handleHttp1(request, response));
    },
  };
}
