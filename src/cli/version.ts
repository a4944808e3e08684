/** Set by `make build` (`bun build --define`); a run from source has no revision. */
declare const BUNKERD_REVISION: string | undefined;

/** As in package.json; a test holds them together. */
export const VERSION = "0.1.0";
export const REVISION: string = typeof BUNKERD_REVISION === "undefined" ? "" : BUNKERD_REVISION;

/** One line, in the form of `containerd --version`. */
export function formatVersion(): string {
  return ["bunkerd", "github.com/bunkerd/bunkerd", `v${VERSION}`, REVISION].join(" ").trimEnd();
}
