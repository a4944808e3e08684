import * as v from "valibot";
import {
  boolean,
  defaulted,
  int32,
  list,
  notCarriedOut,
  object,
  oneOf,
  optional,
  port,
  quantities,
  string,
  strings,
} from "./fields.ts";
import { lifecycle, probe } from "./handlers.ts";
import { securityContext } from "./security.ts";
import { fieldRef, resourceFieldRef, volumeMount } from "./volumes.ts";

const keyRef = object({ name: string, key: string, optional: optional(boolean) });

const env = object({
  name: string,
  value: optional(string),
  valueFrom: optional(
    object({
      fieldRef: optional(fieldRef),
      resourceFieldRef: optional(resourceFieldRef),
      configMapKeyRef: optional(keyRef),
      secretKeyRef: optional(keyRef),
      fileKeyRef: notCarriedOut("it is an alpha field"),
    }),
  ),
});

const envFrom = object({
  prefix: optional(string, ""),
  configMapRef: optional(object({ name: string, optional: optional(boolean) })),
  secretRef: optional(object({ name: string, optional: optional(boolean) })),
});

export const resources = object({
  limits: optional(quantities),
  requests: optional(quantities),
  claims: notCarriedOut("there is no API server to allocate claims"),
});

const containerPort = object({
  name: defaulted(string, undefined),
  containerPort: port,
  hostPort: defaulted(port, undefined, 0),
  hostIP: optional(string),
  protocol: defaulted(oneOf("TCP", "UDP", "SCTP"), "TCP"),
});

const restartRule = object({
  action: v.pipe(
    oneOf("Restart", "RestartAllContainers"),
    v.literal(
      "Restart",
      "is not carried out: of a pod's containers only the one that has ended is started again",
    ),
  ),
  exitCodes: object({ operator: oneOf("In", "NotIn"), values: optional(list(int32)) }),
});

/** Fields that every kind of container has. Defaults: `pkg/apis/core/v1/defaults.go`, `SetDefaults_Container`. */
const common = {
  name: string,
  image: string,
  command: optional(strings),
  args: optional(strings),
  workingDir: optional(string),
  env: optional(list(env)),
  envFrom: optional(list(envFrom)),
  imagePullPolicy: defaulted(oneOf("Always", "Never", "IfNotPresent"), undefined),
  securityContext: optional(securityContext),
  stdin: optional(boolean, false),
  stdinOnce: optional(boolean, false),
  tty: optional(boolean, false),
  terminationMessagePath: defaulted(string, "/dev/termination-log"),
  terminationMessagePolicy: defaulted(oneOf("File", "FallbackToLogsOnError"), "File"),
  volumeMounts: optional(list(volumeMount)),
  volumeDevices: notCarriedOut("there is no API server to bind block devices"),
};

export const container = object({
  ...common,
  ports: optional(list(containerPort)),
  resources: optional(resources),
  resizePolicy: optional(
    list(object({ resourceName: string, restartPolicy: oneOf("NotRequired", "RestartContainer") })),
  ),
  /** Instead of the pod's; `Always` makes an init container a sidecar. */
  restartPolicy: optional(oneOf("Always", "OnFailure", "Never")),
  restartPolicyRules: optional(list(restartRule)),
  lifecycle: optional(lifecycle),
  livenessProbe: optional(probe),
  readinessProbe: optional(probe),
  startupProbe: optional(probe),
});

export const ephemeralContainer = object({
  ...common,
  targetContainerName: defaulted(string, undefined),
  ports: notCarriedOut("Kubernetes forbids it in an ephemeral container"),
  resources: notCarriedOut("Kubernetes forbids it in an ephemeral container"),
  lifecycle: notCarriedOut("Kubernetes forbids it in an ephemeral container"),
  livenessProbe: notCarriedOut("Kubernetes forbids it in an ephemeral container"),
  readinessProbe: notCarriedOut("Kubernetes forbids it in an ephemeral container"),
  startupProbe: notCarriedOut("Kubernetes forbids it in an ephemeral container"),
  restartPolicy: notCarriedOut("Kubernetes forbids it in an ephemeral container"),
  restartPolicyRules: notCarriedOut("Kubernetes forbids it in an ephemeral container"),
  resizePolicy: notCarriedOut("Kubernetes forbids it in an ephemeral container"),
});

export type Container = v.InferOutput<typeof container>;
export type EphemeralContainer = v.InferOutput<typeof ephemeralContainer>;
export type Resources = v.InferOutput<typeof resources>;
export type EnvVar = v.InferOutput<typeof env>;
export type EnvFrom = v.InferOutput<typeof envFrom>;
export type ContainerPort = v.InferOutput<typeof containerPort>;
