import { fieldPathProblem, resourceFieldProblem } from "./field-paths.ts";
import { DNS_LABEL, isDnsLabel, isLocalPath, LOCAL_PATH, type Problems } from "./problems.ts";
import type { DownwardFile, KeyToPath, Volume, VolumeProjection } from "./volumes.ts";

/** Kubernetes: `pkg/apis/core/validation`, `ValidateVolumes`. */
export function validateVolumes(volumes: readonly Volume[], problems: Problems): void {
  problems.unique(
    volumes.map(({ name }) => name),
    "name",
  );
  volumes.forEach((volume, index) => {
    validateVolume(volume, problems.at(index));
  });
}

function validateVolume({ name, ...sources }: Volume, problems: Problems): void {
  problems.at("name").check(isDnsLabel(name), DNS_LABEL);
  const { emptyDir, hostPath, configMap, secret, downwardAPI, projected, image } = sources;
  problems.exactlyOne(
    { emptyDir, hostPath, configMap, secret, downwardAPI, projected, image },
    "a volume type",
  );
  if (hostPath !== undefined) {
    const at = problems.at("hostPath", "path");
    at.check(hostPath.path.startsWith("/"), "must be an absolute path");
    at.check(!hostPath.path.split("/").includes(".."), "must not contain '..'");
  }
  validateItems(configMap?.items, problems.at("configMap", "items"));
  validateItems(secret?.items, problems.at("secret", "items"));
  validateDownward(downwardAPI?.items, problems.at("downwardAPI", "items"));
  projected?.sources?.forEach((source, index) => {
    validateProjection(source, problems.at("projected", "sources", index));
  });
  if (image !== undefined) problems.at("image", "reference").check(image.reference !== "", "is required");
}

function validateProjection({ configMap, secret, downwardAPI }: VolumeProjection, problems: Problems): void {
  problems.exactlyOne({ configMap, secret, downwardAPI }, "a source");
  validateItems(configMap?.items, problems.at("configMap", "items"));
  validateItems(secret?.items, problems.at("secret", "items"));
  validateDownward(downwardAPI?.items, problems.at("downwardAPI", "items"));
}

function validateItems(items: readonly KeyToPath[] | undefined, problems: Problems): void {
  items?.forEach(({ path }, index) => {
    problems.at(index, "path").check(path !== "" && isLocalPath(path), LOCAL_PATH);
  });
}

function validateDownward(items: readonly DownwardFile[] | undefined, problems: Problems): void {
  items?.forEach(({ path, fieldRef, resourceFieldRef }, index) => {
    const at = problems.at(index);
    at.at("path").check(path !== "" && isLocalPath(path), LOCAL_PATH);
    at.exactlyOne({ fieldRef, resourceFieldRef }, "a source");
    if (fieldRef !== undefined) {
      const wrong = fieldPathProblem(fieldRef.fieldPath, "volume");
      if (wrong !== undefined) at.at("fieldRef", "fieldPath").add(wrong);
    }
    if (resourceFieldRef === undefined) return;
    const source = at.at("resourceFieldRef");
    source.at("containerName").check(resourceFieldRef.containerName !== undefined, "is required in a volume");
    const bad = resourceFieldProblem(resourceFieldRef);
    if (bad !== undefined) source.at(bad.field).add(bad.message);
  });
}
