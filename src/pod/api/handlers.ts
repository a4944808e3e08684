/** Hooks and probes of a container. */
import type * as v from "valibot";
import {
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
  path: optional(string, "/"),
  port: intOrString,
  host: optional(string),
  scheme: optional(oneOf("HTTP", "HTTPS"), "HTTP"),
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
  timeoutSeconds: optional(positive, 1),
  periodSeconds: optional(positive, 10),
  successThreshold: optional(positive, 1),
  failureThreshold: optional(positive, 3),
  terminationGracePeriodSeconds: optional(int64),
});

export type HttpGet = v.InferOutput<typeof httpGet>;
export type TcpSocket = v.InferOutput<typeof tcpSocket>;
export type LifecycleHandler = v.InferOutput<typeof lifecycleHandler>;
export type Probe = v.InferOutput<typeof probe>;
