/** Hooks and probes of a container. */
import type * as v from "valibot";
import {
  defaulted,
  int64,
  intOrString,
  list,
  natural,
  object,
  oneOf,
  optional,
  port,
  positive,
  string,
  strings,
} from "./fields.ts";

const exec = object({ command: optional(strings) });

const httpGet = object({
  path: defaulted(string, "/"),
  port: intOrString,
  host: optional(string),
  scheme: defaulted(oneOf("HTTP", "HTTPS"), "HTTP"),
  httpHeaders: optional(list(object({ name: string, value: string }))),
});

const tcpSocket = object({ port: intOrString, host: optional(string) });

const lifecycleHandler = object({
  exec: optional(exec),
  httpGet: optional(httpGet),
  tcpSocket: optional(tcpSocket),
  sleep: optional(object({ seconds: int64 })),
});

export const lifecycle = object({
  postStart: optional(lifecycleHandler),
  preStop: optional(lifecycleHandler),
  stopSignal: optional(string),
});

/** Defaults: Kubernetes' `pkg/apis/core/v1/defaults.go`, `SetDefaults_Probe`. */
export const probe = object({
  exec: optional(exec),
  httpGet: optional(httpGet),
  tcpSocket: optional(tcpSocket),
  grpc: optional(object({ port, service: optional(string, "") })),
  initialDelaySeconds: optional(natural, 0),
  timeoutSeconds: defaulted(positive, 1, 0),
  periodSeconds: defaulted(positive, 10, 0),
  successThreshold: defaulted(positive, 1, 0),
  failureThreshold: defaulted(positive, 3, 0),
  terminationGracePeriodSeconds: optional(int64),
});

export type HttpGet = v.InferOutput<typeof httpGet>;
export type TcpSocket = v.InferOutput<typeof tcpSocket>;
export type LifecycleHandler = v.InferOutput<typeof lifecycleHandler>;
export type Probe = v.InferOutput<typeof probe>;
