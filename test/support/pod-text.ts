/** Pods for tests, in JSON, which is YAML too. */

export type Scripts = Readonly<Record<string, string>>;

/** Containers are `name: script`; `more` adds fields to one of them. */
export function podText(
  name: string,
  scripts: Scripts,
  spec: object = {},
  more: Readonly<Record<string, object>> = {},
  metadata: object = {},
): string {
  const containers = Object.entries(scripts).map(([container, script]) =>
    box(container, script, more[container]),
  );
  return JSON.stringify({
    apiVersion: "v1",
    kind: "Pod",
    metadata: { name, ...metadata },
    spec: { containers, restartPolicy: "Never", terminationGracePeriodSeconds: 5, ...spec },
  });
}

/** A container that runs a script by busybox's shell. */
export function box(name: string, script: string, more: object = {}) {
  return { name, image: "box:1", command: ["sh", "-c", script], ...more };
}
