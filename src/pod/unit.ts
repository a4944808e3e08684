import type { Pod } from "./api/pod.ts";
import type { Recorder } from "./events.ts";
import type { PodPaths } from "./paths.ts";
import { credentialsOf, type PullCredential } from "./pull-secrets.ts";
import type { References } from "./spec/env.ts";
import type { UserNamespace } from "./spec/user-namespace.ts";

/** One pod with everything that stands beside it in its file. */
export interface PodUnit {
  readonly pod: Pod;
  readonly references: References;
  readonly paths: PodPaths;
  readonly userNamespace: UserNamespace | undefined;
}

/** Credentials of the pod's imagePullSecrets; one that is not there is told and left out, as by kubelets. */
export function pullCredentials({ pod, references }: PodUnit, record: Recorder): PullCredential[] {
  const names = (pod.spec.imagePullSecrets ?? []).map(({ name }) => name);
  const missing = names.filter((name) => references.secret(name) === undefined);
  if (missing.length > 0) {
    const message = `Unable to retrieve some image pull secrets (${missing.join(", ")}); attempting to pull the image may not succeed.`;
    record(pod, "", "Warning", "FailedToRetrieveImagePullSecret", message);
  }
  return credentialsOf(names.flatMap((name) => references.secret(name) ?? []));
}
