import * as v from "valibot";
import { container, ephemeralContainer, resources } from "./container.ts";
import {
  boolean,
  defaulted,
  int64,
  list,
  natural,
  notCarriedOut,
  object,
  oneOf,
  optional,
  quantities,
  string,
  strings,
} from "./fields.ts";
import { objectMeta } from "./meta.ts";
import { podSecurityContext } from "./security.ts";
import { volume } from "./volumes.ts";

const NO_SCHEDULER = "there is no scheduler: the pod runs on this machine";

const dnsConfig = object({
  nameservers: optional(strings),
  searches: optional(strings),
  options: optional(list(object({ name: string, value: optional(string) }))),
});

/** Without effect on a node: they tell a scheduler where the pod may go, and this is where it is. */
const schedulersOwn = {
  schedulerName: optional(string),
  tolerations: optional(v.unknown()),
  priority: optional(natural),
  priorityClassName: optional(string),
  preemptionPolicy: optional(string),
  nodeName: optional(string),
  /** There are no services whose addresses could be passed on. */
  enableServiceLinks: optional(boolean),
};

const spec = object({
  ...schedulersOwn,
  containers: v.pipe(list(container), v.minLength(1, "must name at least one container")),
  initContainers: optional(list(container)),
  ephemeralContainers: optional(list(ephemeralContainer)),
  volumes: optional(list(volume)),
  restartPolicy: defaulted(oneOf("Always", "OnFailure", "Never"), "Always"),
  terminationGracePeriodSeconds: optional(natural, 30),
  activeDeadlineSeconds: optional(v.pipe(int64, v.minValue(1, "must be at least 1"))),
  dnsPolicy: defaulted(oneOf("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"), "ClusterFirst"),
  dnsConfig: optional(dnsConfig),
  hostNetwork: optional(boolean, false),
  hostPID: optional(boolean, false),
  hostIPC: optional(boolean, false),
  hostUsers: optional(boolean),
  shareProcessNamespace: optional(boolean, false),
  hostname: optional(string),
  subdomain: optional(string),
  setHostnameAsFQDN: notCarriedOut("there is no cluster whose domain would complete the name"),
  hostnameOverride: notCarriedOut("it is an alpha field; use hostname"),
  hostAliases: optional(list(object({ ip: string, hostnames: optional(strings) }))),
  imagePullSecrets: optional(list(object({ name: string }))),
  runtimeClassName: optional(string),
  securityContext: optional(podSecurityContext),
  overhead: optional(quantities),
  resources: optional(resources),
  os: optional(object({ name: v.literal("linux", "must be linux") })),
  serviceAccountName: notCarriedOut("there is no API server, so there are no service accounts"),
  serviceAccount: notCarriedOut("there is no API server, so there are no service accounts"),
  automountServiceAccountToken: optional(
    v.literal(false, "is not carried out: there is no API server to make tokens"),
  ),
  affinity: notCarriedOut(NO_SCHEDULER),
  nodeSelector: notCarriedOut(NO_SCHEDULER),
  topologySpreadConstraints: notCarriedOut(NO_SCHEDULER),
  schedulingGates: notCarriedOut(NO_SCHEDULER),
  schedulingGroup: notCarriedOut(NO_SCHEDULER),
  workloadRef: notCarriedOut(NO_SCHEDULER),
  readinessGates: notCarriedOut("nobody but an API server's clients could fulfil them"),
  resourceClaims: notCarriedOut("there is no API server to allocate claims"),
});

/** A `v1` Pod as a file holds it. `status` is what `kubectl get -o yaml` adds; it is somebody else's observation. */
export const podFile = object({
  apiVersion: v.literal("v1"),
  kind: v.literal("Pod"),
  metadata: objectMeta,
  spec,
  status: optional(v.unknown()),
});

export type PodFile = v.InferOutput<typeof podFile>;
export type PodSpec = v.InferOutput<typeof spec>;

/** A pod with its identity. */
export interface Pod {
  readonly metadata: {
    readonly name: string;
    readonly namespace: string;
    readonly uid: string;
    readonly labels: Readonly<Record<string, string>>;
    readonly annotations: Readonly<Record<string, string>>;
  };
  readonly spec: PodSpec;
}
