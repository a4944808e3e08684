import type * as v from "valibot";
import {
  boolean,
  defaulted,
  fileMode,
  list,
  object,
  oneOf,
  optional,
  quantity,
  refused,
  string,
} from "./fields.ts";

const items = optional(list(object({ key: string, path: string, mode: optional(fileMode) })));

/** `v1.ObjectFieldSelector` */
export const fieldRef = object({ apiVersion: optional(string), fieldPath: string });

/** `v1.ResourceFieldSelector` */
export const resourceFieldRef = object({
  containerName: optional(string),
  resource: string,
  divisor: optional(quantity),
});

const downwardItems = optional(
  list(
    object({
      path: string,
      fieldRef: optional(fieldRef),
      resourceFieldRef: optional(resourceFieldRef),
      mode: optional(fileMode),
    }),
  ),
);

const projection = object({
  configMap: optional(object({ name: string, items, optional: optional(boolean) })),
  secret: optional(object({ name: string, items, optional: optional(boolean) })),
  downwardAPI: optional(object({ items: downwardItems })),
  serviceAccountToken: refused("there is no API server to make tokens"),
  clusterTrustBundle: refused("there is no API server"),
  podCertificate: refused("there is no API server"),
});

const needsPlugin = refused("this volume needs a storage plugin; mount it on the host and use hostPath");

const HOST_PATH_TYPES = [
  "",
  "DirectoryOrCreate",
  "Directory",
  "FileOrCreate",
  "File",
  "Socket",
  "CharDevice",
  "BlockDevice",
] as const;

export const volume = object({
  name: string,
  emptyDir: optional(
    object({
      medium: optional(oneOf("", "Memory"), ""),
      sizeLimit: optional(quantity),
    }),
  ),
  hostPath: optional(object({ path: string, type: optional(oneOf(...HOST_PATH_TYPES), "") })),
  configMap: optional(
    object({ name: string, items, defaultMode: optional(fileMode, 0o644), optional: optional(boolean) }),
  ),
  secret: optional(
    object({
      secretName: string,
      items,
      defaultMode: optional(fileMode, 0o644),
      optional: optional(boolean),
    }),
  ),
  downwardAPI: optional(object({ items: downwardItems, defaultMode: optional(fileMode, 0o644) })),
  projected: optional(
    object({ sources: optional(list(projection)), defaultMode: optional(fileMode, 0o644) }),
  ),
  image: optional(
    object({ reference: string, pullPolicy: defaulted(oneOf("Always", "Never", "IfNotPresent"), undefined) }),
  ),
  persistentVolumeClaim: refused("there is no API server to bind claims; use hostPath"),
  ephemeral: refused("there is no API server to bind claims; use emptyDir"),
  gitRepo: refused("Kubernetes has retired it; clone in an init container"),
  awsElasticBlockStore: needsPlugin,
  azureDisk: needsPlugin,
  azureFile: needsPlugin,
  cephfs: needsPlugin,
  cinder: needsPlugin,
  csi: needsPlugin,
  fc: needsPlugin,
  flexVolume: needsPlugin,
  flocker: needsPlugin,
  gcePersistentDisk: needsPlugin,
  glusterfs: needsPlugin,
  iscsi: needsPlugin,
  nfs: needsPlugin,
  photonPersistentDisk: needsPlugin,
  portworxVolume: needsPlugin,
  quobyte: needsPlugin,
  rbd: needsPlugin,
  scaleIO: needsPlugin,
  storageos: needsPlugin,
  vsphereVolume: needsPlugin,
});

export const volumeMount = object({
  name: string,
  mountPath: string,
  subPath: optional(string),
  subPathExpr: defaulted(string, undefined),
  readOnly: optional(boolean),
  recursiveReadOnly: optional(oneOf("Disabled", "IfPossible", "Enabled")),
  mountPropagation: optional(oneOf("None", "HostToContainer", "Bidirectional")),
});

export type Volume = v.InferOutput<typeof volume>;
export type VolumeMount = v.InferOutput<typeof volumeMount>;
export type KeyToPath = NonNullable<v.InferOutput<typeof items>>[number];
export type DownwardFile = NonNullable<v.InferOutput<typeof downwardItems>>[number];
export type VolumeProjection = v.InferOutput<typeof projection>;
export type FieldRef = v.InferOutput<typeof fieldRef>;
export type ResourceFieldRef = v.InferOutput<typeof resourceFieldRef>;
