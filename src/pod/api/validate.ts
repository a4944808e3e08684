/** Rules between the fields of a pod: Kubernetes' `pkg/apis/core/validation`, as far as a node needs them. */
import { isIP } from "../../lib/ip.ts";
import type { PodFile, PodSpec } from "./pod.ts";
import { DNS_LABEL, isDnsLabel, type Problem, Problems } from "./problems.ts";
import {
  validateCommon,
  validateContainer,
  validateProfile,
  validateResources,
} from "./validate-container.ts";
import { validateMeta } from "./validate-objects.ts";
import { validateVolumes } from "./validate-volumes.ts";

export type { Problem } from "./problems.ts";

export function validatePod({ metadata, spec }: PodFile): Problem[] {
  const problems = new Problems();
  validateMeta(metadata, problems.at("metadata"));
  if (metadata.uid !== undefined)
    problems
      .at("metadata", "uid")
      .check(/^[\w-]{1,64}$/.test(metadata.uid), "must be at most 64 letters, digits, '-' and '_'");
  const at = problems.at("spec");
  validateVolumes(spec.volumes ?? [], at.at("volumes"));
  validateContainers(spec, at);
  validateHost(spec, at);
  validateNames(spec, at);
  validateProfile(spec.securityContext?.seccompProfile, at.at("securityContext", "seccompProfile"));
  validateProfile(spec.securityContext?.appArmorProfile, at.at("securityContext", "appArmorProfile"));
  validateResources(spec.resources, at.at("resources"));
  return problems.found;
}

function validateContainers(spec: PodSpec, problems: Problems): void {
  const volumes = new Set(spec.volumes?.map(({ name }) => name));
  const lists = { initContainers: spec.initContainers, containers: spec.containers };
  const names = new Map<string, string>();
  const checkName = (list: string, index: number, name: string): void => {
    const earlier = names.get(name);
    if (earlier !== undefined)
      problems.at(list, index, "name").add(`duplicate value ${JSON.stringify(name)}, used in ${earlier}`);
    names.set(name, `spec.${list}[${index}]`);
  };
  for (const [list, containers] of Object.entries(lists)) {
    containers?.forEach((container, index) => {
      checkName(list, index, container.name);
      validateContainer(container, list === "initContainers", volumes, problems.at(list, index));
    });
  }
  spec.ephemeralContainers?.forEach((container, index) => {
    checkName("ephemeralContainers", index, container.name);
    const at = problems.at("ephemeralContainers", index);
    validateCommon(container, volumes, at);
    const target = container.targetContainerName;
    if (target !== undefined)
      at.at("targetContainerName").check(
        spec.containers.some(({ name }) => name === target) ||
          (spec.initContainers?.some(({ name }) => name === target) ?? false),
        `container ${JSON.stringify(target)} not found`,
      );
  });
}

function validateHost(spec: PodSpec, problems: Problems): void {
  problems.check(
    !(spec.hostPID && spec.shareProcessNamespace),
    "shareProcessNamespace and hostPID cannot both be enabled",
  );
  if (spec.hostUsers === false) {
    for (const field of ["hostNetwork", "hostPID", "hostIPC"] as const) {
      problems.at(field).check(!spec[field], "when hostUsers is false, may not be set");
    }
  } else validateUnmasked(spec, problems);
  const taken = new Set<string>();
  spec.containers.forEach((container, index) => {
    container.ports?.forEach(({ hostPort, containerPort, protocol, hostIP }, portIndex) => {
      const at = problems.at("containers", index, "ports", portIndex);
      if (hostIP !== undefined)
        at.at("hostIP").check(hostIP === "" || isIP(hostIP) !== 0, "must be a valid IP address");
      if (spec.hostNetwork && hostPort !== undefined)
        at.at("containerPort").check(
          hostPort === containerPort,
          "must match hostPort when hostNetwork is true",
        );
      if (hostPort === undefined) return;
      const key = `${protocol}/${hostIP ?? ""}/${hostPort}`;
      at.at("hostPort").check(!taken.has(key), `duplicate value ${hostPort}`);
      taken.add(key);
    });
  });
}

/** `/proc` of the machine's own users stays masked. */
function validateUnmasked(spec: PodSpec, problems: Problems): void {
  for (const list of ["initContainers", "containers", "ephemeralContainers"] as const) {
    spec[list]?.forEach(({ securityContext }, index) => {
      const at = problems.at(list, index, "securityContext", "procMount");
      at.check(securityContext?.procMount !== "Unmasked", "hostUsers must be false to use Unmasked");
    });
  }
}

function validateNames(spec: PodSpec, problems: Problems): void {
  for (const field of ["hostname", "subdomain"] as const) {
    const name = spec[field];
    if (name !== undefined && name !== "") problems.at(field).check(isDnsLabel(name), DNS_LABEL);
  }
  spec.hostAliases?.forEach(({ ip }, index) => {
    problems.at("hostAliases", index, "ip").check(isIP(ip) !== 0, "must be a valid IP address");
  });
  const nameservers = spec.dnsConfig?.nameservers ?? [];
  if (spec.dnsPolicy === "None")
    problems
      .at("dnsConfig", "nameservers")
      .check(nameservers.length > 0, "must provide at least one DNS nameserver when dnsPolicy is None");
  problems
    .at("dnsConfig", "nameservers")
    .check(nameservers.length <= 3, "must not have more than 3 nameservers");
  nameservers.forEach((address, index) => {
    problems.at("dnsConfig", "nameservers", index).check(isIP(address) !== 0, "must be a valid IP address");
  });
}
