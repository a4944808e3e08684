import type { Container, EphemeralContainer, Resources } from "./container.ts";
import { fieldPathProblem, resourceFieldProblem } from "./field-paths.ts";
import type { LifecycleHandler, Probe } from "./handlers.ts";
import { DNS_LABEL, isDnsLabel, isLocalPath, LOCAL_PATH, type Problems } from "./problems.ts";
import { compareQuantities } from "./quantity.ts";
import type { SecurityContext, SecurityProfileField } from "./security.ts";
import { signalNumber } from "./signals.ts";
import type { VolumeMount } from "./volumes.ts";

export type AnyContainer = Container | EphemeralContainer;

/** What every kind of container must hold to: `pkg/apis/core/validation`, `validateContainerCommon`. */
export function validateCommon(
  container: AnyContainer,
  volumes: ReadonlySet<string>,
  problems: Problems,
): void {
  problems.at("name").check(isDnsLabel(container.name), DNS_LABEL);
  problems.at("image").check(container.image !== "", "is required");
  problems
    .at("image")
    .check(container.image.trim() === container.image, "must not have leading or trailing whitespace");
  problems.at("terminationMessagePath").check(container.terminationMessagePath !== "", "is required");
  validateEnv(container, problems);
  validateMounts(container.volumeMounts ?? [], volumes, problems.at("volumeMounts"));
  if (container.securityContext !== undefined)
    validateSecurity(container.securityContext, problems.at("securityContext"));
}

/** @param isInit an init container; a sidecar among them may have what an ordinary container may */
export function validateContainer(
  container: Container,
  isInit: boolean,
  volumes: ReadonlySet<string>,
  problems: Problems,
): void {
  validateCommon(container, volumes, problems);
  problems.at("ports").unique(
    (container.ports ?? []).map(({ name }) => name),
    "name",
  );
  container.ports?.forEach(({ name }, index) => {
    if (name !== undefined)
      problems
        .at("ports", index, "name")
        .check(
          /^(?=.*[a-z])(?!.*--)[a-z0-9](?:[-a-z0-9]{0,13}[a-z0-9])?$/.test(name),
          "must be at most 15 of a-z, 0-9 and '-' with a letter (IANA service name)",
        );
  });
  validateResources(container.resources, problems.at("resources"));
  const sidecar = container.restartPolicy === "Always";
  const { restartPolicy, restartPolicyRules = [] } = container;
  problems
    .at("restartPolicy")
    .check(
      restartPolicyRules.length === 0 || restartPolicy !== undefined,
      "must be specified when restart rules are used",
    );
  problems.at("restartPolicyRules").check(restartPolicyRules.length <= 20, "must have at most 20 rules");
  for (const field of ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] as const) {
    if (isInit && !sidecar && container[field] !== undefined)
      problems.at(field).add("may not be set for init containers without restartPolicy=Always");
  }
  for (const field of ["livenessProbe", "readinessProbe", "startupProbe"] as const) {
    const probe = container[field];
    if (probe !== undefined) validateProbe(probe, field, container, problems.at(field));
  }
  const { postStart, preStop, stopSignal } = container.lifecycle ?? {};
  if (postStart !== undefined) validateHandler(postStart, container, problems.at("lifecycle", "postStart"));
  if (preStop !== undefined) validateHandler(preStop, container, problems.at("lifecycle", "preStop"));
  if (stopSignal !== undefined)
    problems
      .at("lifecycle", "stopSignal")
      .check(signalNumber(stopSignal) !== undefined, `unknown signal ${stopSignal}`);
}

function validateEnv(container: AnyContainer, problems: Problems): void {
  container.env?.forEach(({ name, value, valueFrom }, index) => {
    const at = problems.at("env", index);
    at.at("name").check(name !== "" && !/[=\0]/.test(name), "must be a name without '='");
    if (valueFrom === undefined) return;
    at.check(value === undefined || value === "", "valueFrom may not be specified when value is not empty");
    const { fieldRef, resourceFieldRef, configMapKeyRef, secretKeyRef } = valueFrom;
    at.at("valueFrom").exactlyOne({ fieldRef, resourceFieldRef, configMapKeyRef, secretKeyRef }, "a source");
    const wrong = fieldRef === undefined ? undefined : fieldPathProblem(fieldRef.fieldPath, "env");
    if (wrong !== undefined) at.at("valueFrom", "fieldRef", "fieldPath").add(wrong);
    const bad = resourceFieldRef === undefined ? undefined : resourceFieldProblem(resourceFieldRef);
    if (bad !== undefined) at.at("valueFrom", "resourceFieldRef", bad.field).add(bad.message);
  });
  container.envFrom?.forEach(({ configMapRef, secretRef }, index) => {
    problems.at("envFrom", index).exactlyOne({ configMapRef, secretRef }, "a source");
  });
}

function validateMounts(
  mounts: readonly VolumeMount[],
  volumes: ReadonlySet<string>,
  problems: Problems,
): void {
  problems.unique(
    mounts.map(({ mountPath }) => mountPath),
    "mountPath",
  );
  mounts.forEach((mount, index) => {
    const at = problems.at(index);
    at.at("name").check(
      volumes.has(mount.name),
      `volume ${JSON.stringify(mount.name)} not found in spec.volumes`,
    );
    at.at("mountPath").check(mount.mountPath !== "", "is required");
    if (mount.subPath !== undefined) at.at("subPath").check(isLocalPath(mount.subPath), LOCAL_PATH);
    if (mount.subPathExpr !== undefined) {
      at.at("subPathExpr").check(isLocalPath(mount.subPathExpr), LOCAL_PATH);
      at.check(!mount.subPath, "subPathExpr and subPath are mutually exclusive");
    }
    if ((mount.recursiveReadOnly ?? "Disabled") !== "Disabled") {
      at.at("recursiveReadOnly").check(
        mount.readOnly === true,
        "may only be specified when readOnly is true",
      );
      at.at("recursiveReadOnly").check(
        (mount.mountPropagation ?? "None") === "None",
        "may only be specified when mountPropagation is None or not specified",
      );
    }
  });
}

function validateSecurity(context: SecurityContext, problems: Problems): void {
  validateProfile(context.seccompProfile, problems.at("seccompProfile"));
  validateProfile(context.appArmorProfile, problems.at("appArmorProfile"));
  if (context.allowPrivilegeEscalation !== false) return;
  problems.check(
    context.privileged !== true,
    "cannot set allowPrivilegeEscalation to false and privileged to true",
  );
  const admin = context.capabilities?.add?.some((name) => ["SYS_ADMIN", "CAP_SYS_ADMIN"].includes(name));
  problems.check(!admin, "cannot set allowPrivilegeEscalation to false and add the capability SYS_ADMIN");
}

export function validateProfile(profile: SecurityProfileField | undefined, problems: Problems): void {
  if (profile === undefined) return;
  const local = profile.type === "Localhost";
  problems.at("localhostProfile").check(isLocalPath(profile.localhostProfile ?? ""), LOCAL_PATH);
  const named = (profile.localhostProfile ?? "") !== "";
  problems
    .at("localhostProfile")
    .check(
      local === named,
      local ? "must be set when type is Localhost" : "can only be set when type is Localhost",
    );
}

const RESOURCE = /^(?:cpu|memory|hugepages-\d+[KMG]i)$/;

export function validateResources(resources: Resources | undefined, problems: Problems): void {
  for (const kind of ["limits", "requests"] as const) {
    for (const [name, amount] of Object.entries(resources?.[kind] ?? {})) {
      const at = problems.at(kind, name);
      if (!RESOURCE.test(name)) at.add("is not carried out: cpu, memory and hugepages-SIZE are");
      else at.check(compareQuantities(amount, "0") >= 0, "must be greater than or equal to 0");
    }
  }
  for (const [name, request] of Object.entries(resources?.requests ?? {})) {
    const limit = resources?.limits?.[name];
    if (limit !== undefined && RESOURCE.test(name) && compareQuantities(request, limit) > 0)
      problems.at("requests", name).add(`must be less than or equal to ${name} limit of ${limit}`);
  }
}

function validateProbe(probe: Probe, field: string, container: Container, problems: Problems): void {
  const { exec, httpGet, tcpSocket, grpc } = probe;
  problems.exactlyOne({ exec, httpGet, tcpSocket, grpc }, "a handler type");
  if (exec !== undefined)
    problems.at("exec", "command").check((exec.command ?? []).length > 0, "is required");
  for (const [name, handler] of [
    ["httpGet", httpGet],
    ["tcpSocket", tcpSocket],
  ] as const) {
    if (handler !== undefined) validatePort(handler.port, container, problems.at(name, "port"));
  }
  if (field !== "readinessProbe")
    problems.at("successThreshold").check(probe.successThreshold === 1, "must be 1");
  if (probe.terminationGracePeriodSeconds !== undefined) {
    const at = problems.at("terminationGracePeriodSeconds");
    at.check(field !== "readinessProbe", "must not be set for readinessProbes");
    at.check(probe.terminationGracePeriodSeconds > 0, "must be greater than 0");
  }
}

function validateHandler(handler: LifecycleHandler, container: Container, problems: Problems): void {
  const { exec, httpGet, sleep, tcpSocket } = handler;
  if (tcpSocket !== undefined)
    problems.at("tcpSocket").add("is not carried out: Kubernetes has no such hook");
  problems.exactlyOne({ exec, httpGet, sleep, tcpSocket }, "a handler type");
  if (exec !== undefined)
    problems.at("exec", "command").check((exec.command ?? []).length > 0, "is required");
  if (httpGet !== undefined) validatePort(httpGet.port, container, problems.at("httpGet", "port"));
  if (sleep !== undefined) problems.at("sleep", "seconds").check(sleep.seconds >= 0, "must be at least 0");
}

function validatePort(port: number | string, container: Container, problems: Problems): void {
  if (typeof port === "number") return;
  const known = container.ports?.some(({ name }) => name === port) ?? false;
  problems.check(known, `names no port of the container: ${JSON.stringify(port)}`);
}
