import type * as v from "valibot";
import { boolean, id, list, notCarriedOut, object, oneOf, optional, string, strings } from "./fields.ts";

const seLinuxOptions = object({
  user: optional(string, ""),
  role: optional(string, ""),
  type: optional(string, ""),
  level: optional(string, ""),
});

const profile = object({
  type: oneOf("RuntimeDefault", "Unconfined", "Localhost"),
  localhostProfile: optional(string),
});

const windowsOptions = notCarriedOut("this is no Windows");

export const podSecurityContext = object({
  runAsUser: optional(id),
  runAsGroup: optional(id),
  runAsNonRoot: optional(boolean),
  fsGroup: optional(id),
  fsGroupChangePolicy: optional(oneOf("Always", "OnRootMismatch")),
  supplementalGroups: optional(list(id)),
  supplementalGroupsPolicy: optional(oneOf("Merge", "Strict")),
  seccompProfile: optional(profile),
  appArmorProfile: optional(profile),
  seLinuxOptions: optional(seLinuxOptions),
  seLinuxChangePolicy: notCarriedOut("volumes are not labelled for SELinux"),
  sysctls: optional(list(object({ name: string, value: string }))),
  windowsOptions,
});

export const securityContext = object({
  runAsUser: optional(id),
  runAsGroup: optional(id),
  runAsNonRoot: optional(boolean),
  privileged: optional(boolean),
  allowPrivilegeEscalation: optional(boolean),
  readOnlyRootFilesystem: optional(boolean),
  capabilities: optional(object({ add: optional(strings), drop: optional(strings) })),
  procMount: optional(oneOf("Default", "Unmasked")),
  seccompProfile: optional(profile),
  appArmorProfile: optional(profile),
  seLinuxOptions: optional(seLinuxOptions),
  windowsOptions,
});

export type PodSecurityContext = v.InferOutput<typeof podSecurityContext>;
export type SecurityContext = v.InferOutput<typeof securityContext>;
export type SecurityProfileField = v.InferOutput<typeof profile>;
