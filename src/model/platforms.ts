import { readFileSync } from "node:fs";
import type { Platform as PlatformMessage } from "#gen/containerd/types/platform_pb.ts";
import { fail, quote } from "./errors.ts";

/*
 * Platforms of images: names, their normal form, and which image runs where. Source of the rules: `github.com/containerd/platforms`
 * (`platforms.go`, `database.go`, `compare.go`, `cpuinfo_linux.go`).
 */

export type Platform = Readonly<
  Pick<PlatformMessage, "os" | "architecture" | "variant" | "osVersion" | "osFeatures">
>;

/** Says which platforms will do, and which of two is the better one. */
export interface PlatformMatcher {
  match(platform: Platform): boolean;
  /** True if `a` is to be preferred to `b`. */
  less(a: Platform, b: Platform): boolean;
}

const KNOWN_SYSTEMS: ReadonlySet<string> = new Set(
  (
    "aix android darwin dragonfly freebsd hurd illumos ios js linux nacl netbsd openbsd plan9 solaris " +
    "windows zos"
  ).split(" "),
);
const KNOWN_ARCHITECTURES: ReadonlySet<string> = new Set(
  (
    "386 amd64 amd64p32 arm armbe arm64 arm64be ppc64 ppc64le loong64 mips mipsle mips64 mips64le mips64p32 " +
    "mips64p32le ppc riscv riscv64 s390 s390x sparc sparc64 wasm"
  ).split(" "),
);
const COMPONENT = /^[A-Za-z0-9_.-]+$/;
const SYSTEM = /^([A-Za-z0-9_-]+)(?:\(([A-Za-z0-9_.%-]*)((?:\+[A-Za-z0-9_.%-]+)*)\))?$/;

/** How Go names the architectures that Bun names otherwise. */
const GO_ARCHITECTURES: Readonly<Record<string, string>> = { x64: "amd64", ia32: "386" };
const HOST_SYSTEM = "linux";

export function platformOf(os: string, architecture: string, variant = ""): Platform {
  return { os, architecture, variant, osVersion: "", osFeatures: [] };
}

/** Of this machine. */
export function hostPlatform(): Platform {
  const architecture = GO_ARCHITECTURES[process.arch] ?? process.arch;
  const isArm = architecture === "arm" || architecture === "arm64";
  return platformOf(HOST_SYSTEM, architecture, isArm ? armVariant(architecture) : "");
}

/** Of the machine's first core; what the kernel does not tell is the architecture's common one. */
function armVariant(architecture: string): string {
  const fallback = architecture === "arm64" ? "v8" : "v7";
  const fields = new Map<string, string>();
  try {
    for (const line of readFileSync("/proc/cpuinfo", "latin1").split("\n")) {
      const [name = "", value] = line.split(":");
      const key = name.trim().toLowerCase();
      if (value !== undefined && !fields.has(key)) fields.set(key, value.trim().toLowerCase());
    }
  } catch {
    return fallback;
  }
  const value = fields.get("cpu architecture") ?? "";
  if (architecture === "arm" && value === "7" && fields.get("model name")?.startsWith("armv6-compatible")) {
    return "v6";
  }
  if (value === "aarch64") return "v8";
  if (/^\?\(1[2-7]\)$/.test(value)) return "v7";
  const version = /^([3-8])(?:m|t|te|tej)?$/.exec(value)?.[1];
  return version === undefined ? fallback : `v${version}`;
}

/** The canonical names: `x86_64` is `amd64`, `aarch64/v8` is `arm64`. */
export function normalizePlatform(platform: Platform): Platform {
  const os = platform.os === "" ? HOST_SYSTEM : platform.os.toLowerCase();
  const [architecture, variant] = normalizeArchitecture(platform.architecture, platform.variant);
  const osFeatures = [...new Set(platform.osFeatures)].sort();
  return {
    os: os === "macos" ? "darwin" : os,
    architecture,
    variant,
    osVersion: platform.osVersion,
    osFeatures,
  };
}

function normalizeArchitecture(architecture: string, variant: string): [string, string] {
  const name = architecture.toLowerCase();
  const version = variant.toLowerCase();
  switch (name) {
    case "i386":
      return ["386", ""];
    case "x86_64":
    case "x86-64":
    case "amd64":
      return ["amd64", version === "v1" ? "" : version];
    case "aarch64":
    case "arm64":
      if (["8", "v8", "v8.0"].includes(version)) return ["arm64", ""];
      return ["arm64", ["9", "9.0", "v9.0"].includes(version) ? "v9" : version];
    case "armhf":
      return ["arm", "v7"];
    case "armel":
      return ["arm", "v6"];
    case "arm":
      if (version === "" || version === "7") return ["arm", "v7"];
      return ["arm", ["5", "6", "8"].includes(version) ? `v${version}` : version];
    default:
      return [name, version];
  }
}

/**
 * Reads `linux/amd64`, `windows(10.0.17763+feature)/amd64`, `arm64`, `linux`. What is missing is this machine's.
 * @throws InvalidArgument, in the reference's words
 */
export function parsePlatform(specifier: string): Platform {
  const invalid = (reason: string): Error => fail("InvalidArgument", reason);
  if (specifier.includes("*")) throw invalid(`${quote(specifier)}: wildcards not yet supported`);
  const [first = "", second, third, ...more] = specifier.split("/");
  const system = SYSTEM.exec(first);
  if (system === null) {
    const rule = `OSAndVersion specifier component must match ${quote(SYSTEM.source)}`;
    throw invalid(`${quote(first)} is an invalid OS component of ${quote(specifier)}: ${rule}`);
  }
  for (const part of [second, third, ...more]) {
    if (part === undefined || COMPONENT.test(part)) continue;
    const rule = `platform specifier component must match ${quote(COMPONENT.source)}`;
    throw invalid(`${quote(part)} is an invalid component of ${quote(specifier)}: ${rule}`);
  }
  if (more.length > 0) throw invalid(`${quote(specifier)}: cannot parse platform specifier`);
  const { os } = normalizePlatform(platformOf(system[1] ?? "", ""));
  const osVersion = decodeOption(system[2] ?? "", specifier);
  const osFeatures = (system[3] ?? "").split("+").flatMap((feature) => {
    return feature === "" ? [] : [decodeOption(feature, specifier)];
  });
  if (second === undefined) return { ...fromOneWord(first, os), osVersion, osFeatures };
  const [architecture, variant] = normalizeArchitecture(second, third ?? "");
  if (third === undefined)
    return { os, architecture, variant: withoutCommon(architecture, variant), osVersion, osFeatures };
  const stated = architecture === "arm64" && variant === "" ? "v8" : variant;
  return { os, architecture, variant: stated, osVersion, osFeatures };
}

/** A system or an architecture. @throws InvalidArgument if it is neither */
function fromOneWord(word: string, os: string): Platform {
  const host = hostPlatform();
  if (KNOWN_SYSTEMS.has(os)) {
    const variant = host.architecture === "arm" && host.variant !== "v7" ? host.variant : "";
    return platformOf(os, host.architecture, variant);
  }
  const [architecture, variant] = normalizeArchitecture(word, "");
  if (KNOWN_ARCHITECTURES.has(architecture)) {
    return platformOf(HOST_SYSTEM, architecture, withoutCommon(architecture, variant));
  }
  throw fail("InvalidArgument", `${quote(word)}: unknown operating system or architecture`);
}

function withoutCommon(architecture: string, variant: string): string {
  return architecture === "arm" && variant === "v7" ? "" : variant;
}

function decodeOption(text: string, specifier: string): string {
  try {
    return decodeURIComponent(text);
  } catch (cause) {
    throw fail("InvalidArgument", `${quote(specifier)} has an invalid OS option ${quote(text)}`, { cause });
  }
}

/** `linux/arm/v7`; version and features of the system are left out. */
export function formatPlatform({ os, architecture, variant }: Platform): string {
  return os === "" ? "unknown" : [os, architecture, variant].filter((part) => part !== "").join("/");
}

/** All platforms, in no order. */
export const ALL_PLATFORMS: PlatformMatcher = { match: () => true, less: () => false };

/** Any of these, the first before the second. */
export function orderedPlatforms(platforms: readonly Platform[]): PlatformMatcher {
  const matches = platforms.map(exactly);
  const less = (a: Platform, b: Platform): boolean => {
    for (const match of matches) {
      const [matchesA, matchesB] = [match(a), match(b)];
      if (matchesA && matchesB) return a.osFeatures.length > b.osFeatures.length;
      if (matchesA || matchesB) return matchesA;
    }
    if (a.osFeatures.length === 0 && b.osFeatures.length === 0) return false;
    return less({ ...a, osFeatures: [] }, { ...b, osFeatures: [] });
  };
  return { match: (platform) => matches.some((match) => match(platform)), less };
}

/** Any of these, none before another. */
export function anyPlatform(platforms: readonly Platform[]): PlatformMatcher {
  const matches = platforms.map(exactly);
  const match = (platform: Platform): boolean => matches.some((matches) => matches(platform));
  const less = (a: Platform, b: Platform): boolean => {
    const [matchesA, matchesB] = [match(a), match(b)];
    if (matchesA && matchesB) return a.osFeatures.length > b.osFeatures.length;
    if (matchesA || matchesB || (a.osFeatures.length === 0 && b.osFeatures.length === 0)) return matchesA;
    return less({ ...a, osFeatures: [] }, { ...b, osFeatures: [] });
  };
  return { match, less };
}

/** What a machine of this platform runs, the best first: `arm/v7` also v6 and v5, `arm64` also `arm`, `amd64` also `386`. */
export function onlyPlatform(platform: Platform): PlatformMatcher {
  return orderedPlatforms(compatiblePlatforms(normalizePlatform(platform)));
}

/** This platform and no other. */
export function strictPlatform(platform: Platform): PlatformMatcher {
  return orderedPlatforms([normalizePlatform(platform)]);
}

/** Any architecture, as long as the system is this one; the platform's own before others. */
export function systemOf(platform: Platform): PlatformMatcher {
  const wanted = normalizePlatform(platform);
  const own = exactly(wanted);
  const match = (other: Platform): boolean => {
    const { os, osVersion, osFeatures } = normalizePlatform(other);
    return (
      os === wanted.os &&
      matchesVersion(wanted, osVersion) &&
      isSubset(featuresOf(wanted, osFeatures), wanted)
    );
  };
  return {
    match,
    less: (a, b) => match(a) && (!match(b) || (own(a) && !own(b))),
  };
}

function exactly(platform: Platform): (other: Platform) => boolean {
  const wanted = normalizePlatform(platform);
  return (other) => {
    const { os, architecture, variant, osVersion, osFeatures } = normalizePlatform(other);
    return (
      wanted.os === os &&
      wanted.architecture === architecture &&
      wanted.variant === variant &&
      matchesVersion(wanted, osVersion) &&
      isSubset(featuresOf(wanted, osFeatures), wanted)
    );
  };
}

/** Windows' `win32k` was never compared. */
function featuresOf(wanted: Platform, features: readonly string[]): readonly string[] {
  return wanted.os === "windows" ? features.filter((feature) => feature !== "win32k") : features;
}

function isSubset(features: readonly string[], { osFeatures }: Platform): boolean {
  return features.every((feature) => osFeatures.includes(feature));
}

/** Server releases whose kernel interface stays: a later one runs the containers of the one before it. */
const WINDOWS_RELEASES = [20348, 26100] as const;

/** Only Windows looks at the version, and only if both say one. */
function matchesVersion(wanted: Platform, version: string): boolean {
  if (wanted.os !== "windows" || version === "") return true;
  const host = windowsVersion(wanted.osVersion);
  if (host === undefined) return true;
  const guest = windowsVersion(version) ?? { major: 0, minor: 0, build: 0 };
  if (host.major !== guest.major || host.minor !== guest.minor) return false;
  const [first, ...later] = WINDOWS_RELEASES;
  if (host.build < first) return host.build === guest.build;
  const releases = later.filter((build) => build <= host.build).length;
  const oldest = WINDOWS_RELEASES[Math.max(releases - 1, 0)] ?? first;
  return oldest <= guest.build && guest.build <= host.build;
}

function windowsVersion(version: string): { major: number; minor: number; build: number } | undefined {
  const match = /^(\d{1,3})\.(\d{1,3})\.(\d{1,5})(?:\.|$)/.exec(version);
  if (match === null) return undefined;
  return { major: Number(match[1]), minor: Number(match[2]), build: Number(match[3]) };
}

/** 64-bit ARM: version 9.x also runs 8.(x + 5), never above 8.9. */
const ARM64_MINORS: Readonly<Record<string, number>> = { v8: 9, v9: 7 };

function compatiblePlatforms(platform: Platform): Platform[] {
  const { architecture, variant } = platform;
  const version = Number(/^v?([+-]?\d+)$/.exec(variant)?.[1] ?? Number.NaN);
  const down = (from: number, to: number): Platform[] =>
    Array.from({ length: Math.max(from - to, 0) }, (_, at) => ({
      ...platform,
      variant: `v${from - 1 - at}`,
    }));
  switch (architecture) {
    case "amd64":
      return [platform, ...down(Math.min(version, 64), 1), { ...platform, architecture: "386", variant: "" }];
    case "arm":
      return [platform, ...down(Math.min(version, 64), 5)];
    case "arm64":
      return compatibleArm64(platform);
    default:
      return [platform];
  }
}

function compatibleArm64(platform: Platform): Platform[] {
  const variant = platform.variant === "" ? "v8" : platform.variant;
  const [major = "", minorText = "0"] = variant.split(".");
  const minor = Number(minorText);
  const known = Number.isInteger(minor) && minor >= 0 && minor <= (ARM64_MINORS[major] ?? -1);
  if (!known) return [];
  const named = (version: string, from: number): Platform[] =>
    Array.from({ length: from + 1 }, (_, at) => ({
      ...platform,
      variant: at === from ? version : `${version}.${from - at}`,
    }));
  const versions =
    major === "v9" ? [...named("v9", minor), ...named("v8", Math.min(minor + 5, 9))] : named("v8", minor);
  return [...versions, ...compatiblePlatforms({ ...platform, architecture: "arm", variant: "v8" })];
}
