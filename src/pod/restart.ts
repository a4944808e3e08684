/** Whether a container that has ended is started again: `pkg/api/v1/pod/util.go`, `ContainerShouldRestart`. */
import type { Container } from "./api/container.ts";
import type { PodSpec } from "./api/pod.ts";

type Policy = PodSpec["restartPolicy"];

/** The container's own, else the pod's. */
export function restartPolicyOf({ restartPolicy }: Pick<Container, "restartPolicy">, pod: Policy): Policy {
  return restartPolicy ?? pod;
}

/** The first of the container's rules that matches, else its own policy, else the pod's. */
export function restartsAfter(
  container: Pick<Container, "restartPolicy" | "restartPolicyRules">,
  pod: Policy,
  exitCode: number,
): boolean {
  const ruled = container.restartPolicyRules?.some(({ exitCodes: { operator, values = [] } }) =>
    operator === "In" ? values.includes(exitCode) : !values.includes(exitCode),
  );
  if (ruled === true) return true;
  const policy = restartPolicyOf(container, pod);
  return policy === "Always" || (policy === "OnFailure" && exitCode !== 0);
}
