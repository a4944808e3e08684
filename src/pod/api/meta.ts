import * as v from "valibot";
import { notCarriedOut, object, optional, string, stringMap } from "./fields.ts";

const NO_SERVER = "only an API server sets it";

/** `metav1.ObjectMeta` as a file may set it. */
export const objectMeta = object({
  name: string,
  namespace: optional(string),
  uid: optional(string),
  labels: optional(stringMap),
  annotations: optional(stringMap),
  /** Written by `kubectl get -o yaml` without a meaning for whoever reads it back. */
  creationTimestamp: optional(v.unknown()),
  managedFields: optional(v.unknown()),
  resourceVersion: optional(string),
  selfLink: optional(string),
  generation: optional(v.number()),
  generateName: notCarriedOut("a pod that is named anew each time could not be found again"),
  deletionTimestamp: notCarriedOut(NO_SERVER),
  deletionGracePeriodSeconds: notCarriedOut(NO_SERVER),
  finalizers: notCarriedOut(NO_SERVER),
  ownerReferences: notCarriedOut(NO_SERVER),
});

export const configMap = object({
  apiVersion: v.literal("v1"),
  kind: v.literal("ConfigMap"),
  metadata: objectMeta,
  data: optional(stringMap),
  binaryData: optional(stringMap),
  immutable: optional(v.boolean()),
});

export const secret = object({
  apiVersion: v.literal("v1"),
  kind: v.literal("Secret"),
  metadata: objectMeta,
  type: optional(string),
  data: optional(stringMap),
  stringData: optional(stringMap),
  immutable: optional(v.boolean()),
});

export type ObjectMeta = v.InferOutput<typeof objectMeta>;
export type ConfigMap = v.InferOutput<typeof configMap>;
export type Secret = v.InferOutput<typeof secret>;
