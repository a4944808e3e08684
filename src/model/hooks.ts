/** Hooks of the OCI runtime spec (`config.md`, "POSIX-platform Hooks"), in the order in which a runtime comes by them. */
export const HOOK_POINTS = [
  "prestart",
  "createRuntime",
  "createContainer",
  "startContainer",
  "poststart",
  "poststop",
] as const;

export type HookPoint = (typeof HOOK_POINTS)[number];

export interface Hook {
  readonly path: string;
  readonly args?: readonly string[];
  readonly env?: readonly string[];
  /** Seconds. */
  readonly timeout?: number;
}
