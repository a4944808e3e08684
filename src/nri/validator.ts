/** The built-in veto against what plugins may not change: NRI's `plugins/default-validator`. */
import type { ValidateContainerAdjustmentRequest } from "#gen/nri/pkg/api/v1alpha1/api_pb.ts";
import { Field, SecurityProfile_ProfileType } from "#gen/nri/pkg/api/v1alpha1/api_pb.ts";
import type { Config } from "../config/config.ts";
import { ownValue } from "../lib/record.ts";
import { BunkerdError, quote } from "../model/errors.ts";

export type ValidatorConfig = Config["nri"]["default_validator"];

/** Annotation that names plugins which a pod or one of its containers needs. */
const REQUIRED_ANNOTATION = "required-plugins.noderesource.dev";

/** @throws FailedPrecondition that says which plugin did what it may not, or is missing */
export function validateAdjustment(
  config: ValidatorConfig,
  request: ValidateContainerAdjustmentRequest,
): void {
  const owners = ownValue(request.owners?.owners ?? {}, request.container?.id ?? "");
  const owner = (field: Field): string | undefined => owners?.simple[field];
  const hooks = owner(Field.OciHooks);
  if (config.reject_oci_hook_adjustment && hooks !== undefined)
    refuse(
      `${hooks.includes(",") ? "plugins" : "plugin"} ${quote(hooks)} attempted restricted OCI hook injection`,
    );
  const seccomp = owner(Field.SeccompPolicy);
  if (seccomp !== undefined) validateSeccomp(config, request, seccomp);
  const namespaces = Object.entries(owners?.compound[Field.Namespace]?.owners ?? {});
  if (config.reject_namespace_adjustment && namespaces.length > 0) {
    const offenders = namespaces.map(([type, plugin]) => `${quote(plugin)} (namespace ${quote(type)})`);
    refuse(`attempted restricted namespace adjustment by plugin(s) ${offenders.join(", ")}`);
  }
  validateRequired(config, request);
  const sysctls = Object.values(owners?.compound[Field.Sysctl]?.owners ?? {});
  if (config.reject_sysctl_adjustment && sysctls.length > 0)
    refuse(`attempted restricted sysctl adjustment by plugin(s) ${sysctls.join(", ")}`);
}

function validateSeccomp(
  config: ValidatorConfig,
  request: ValidateContainerAdjustmentRequest,
  plugin: string,
): void {
  const profile = request.container?.linux?.seccompProfile;
  const type = profile?.profileType ?? SecurityProfile_ProfileType.UNCONFINED;
  const [rejected, kind] =
    type === SecurityProfile_ProfileType.UNCONFINED
      ? [config.reject_unconfined_seccomp_adjustment, "unconfined"]
      : type === SecurityProfile_ProfileType.RUNTIME_DEFAULT
        ? [config.reject_runtime_default_seccomp_adjustment, "runtime default"]
        : [config.reject_custom_seccomp_adjustment, "custom"];
  if (rejected) refuse(`plugin ${plugin} attempted restricted ${kind} seccomp policy adjustment`);
}

function validateRequired(config: ValidatorConfig, request: ValidateContainerAdjustmentRequest): void {
  const tolerated = config.tolerate_missing_plugins_annotation;
  if (tolerated !== "") {
    const value = annotationOf(request, tolerated);
    if (value !== undefined && /^(?:1|t|true)$/i.test(value)) return;
    if (value !== undefined && !/^(?:0|f|false)$/i.test(value))
      refuse(`invalid ${tolerated} annotation ${quote(value)}`);
  }
  const annotated = annotationOf(request, REQUIRED_ANNOTATION);
  const required = [...config.required_plugins, ...(annotated === undefined ? [] : listOf(annotated))];
  const present = new Set(request.plugins.flatMap(({ name, index }) => [name, `${index}-${name}`]));
  const missing = required.filter((plugin) => !present.has(plugin));
  if (missing.length > 0)
    refuse(`required ${missing.length === 1 ? "plugin" : "plugins"} ${quote(missing.join(","))} not present`);
}

/** Of the container before the pod's, before one without a target (NRI's `pkg/plugin/annotations.go`). */
function annotationOf(request: ValidateContainerAdjustmentRequest, key: string): string | undefined {
  const annotations = request.pod?.annotations ?? {};
  const name = request.container?.name ?? "";
  return (
    ownValue(annotations, `${key}/container.${name}`) ??
    ownValue(annotations, `${key}/pod`) ??
    ownValue(annotations, key)
  );
}

/** A YAML list of names in either form: `[a, b]`, or a line each. */
function listOf(text: string): string[] {
  const inline = /^\s*\[(.*)\]\s*$/s.exec(text)?.[1];
  const items =
    inline === undefined ? text.split("\n").map((line) => line.replace(/^\s*-\s+/, "")) : inline.split(",");
  return items.map((item) => item.trim().replace(/^(["'])(.*)\1$/, "$2")).filter((item) => item !== "");
}

function refuse(words: string): never {
  throw new BunkerdError("FailedPrecondition", `validation error: ${words}`);
}
