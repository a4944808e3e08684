import { readFile } from "node:fs/promises";
import { SecurityProfile_ProfileType as ProfileType, type SecurityProfile } from "#gen/runtime/v1/api_pb.ts";
import { parseExact } from "../../client/spec.ts";
import { BunkerdError, messageOf, quote } from "../../model/errors.ts";
import { systemReason } from "../system-errors.ts";
import { DEFAULT_PROFILE, hasProfile, loadDefaultProfile } from "./apparmor.ts";
import type { HostFacts } from "./host.ts";
import { defaultSeccomp } from "./seccomp.ts";
import type { Seccomp, Spec } from "./spec.ts";

const LOCALHOST = "localhost/";

/** The part of a security profile that counts. */
type Profile = Pick<SecurityProfile, "profileType" | "localhostRef">;

export interface SeccompRequest {
  readonly seccomp?: SecurityProfile | undefined;
  /** The older field. */
  readonly seccompProfilePath: string;
  readonly privileged: boolean;
}

/** Which profile: the runtime's, or a file. Undefined for none. @throws Unknown for what cannot be */
export function chooseSeccomp(
  request: SeccompRequest,
  unsetProfile: string,
  host: HostFacts,
): Profile | undefined {
  const named = request.seccompProfilePath || unsetProfile;
  const profile = request.seccomp ?? (named === "" ? undefined : profileNamed(named, "seccomp"));
  if (request.privileged || profile === undefined) return undefined;
  const { profileType } = profile;
  if (!host.seccomp) {
    if (profileType === ProfileType.Unconfined) return undefined;
    throw refused("seccomp", "seccomp is not supported");
  }
  assertLocalhost(profile, "seccomp");
  if (profileType === ProfileType.Unconfined) return undefined;
  if (profileType === ProfileType.RuntimeDefault || profileType === ProfileType.Localhost) return profile;
  throw refused("seccomp", "seccomp unknown ProfileType");
}

/** Comes after the capabilities: the default profile depends on them. @throws Unknown */
export async function applySeccomp(
  spec: Spec,
  request: SeccompRequest,
  unsetProfile: string,
  host: HostFacts,
): Promise<void> {
  const profile = chooseSeccomp(request, unsetProfile, host);
  if (profile === undefined) return;
  spec.linux.seccomp =
    profile.profileType === ProfileType.Localhost
      ? await seccompFile(profile.localhostRef)
      : defaultSeccomp(spec, host);
}

async function seccompFile(reference: string): Promise<Seccomp> {
  const path = reference.startsWith(LOCALHOST) ? reference.slice(LOCALHOST.length) : reference;
  const text = await readFile(path, "utf8").catch((cause: unknown) => {
    const reason = `cannot load seccomp profile ${quote(path)}: ${systemReason(cause)}`;
    throw new BunkerdError("Unknown", reason, { cause });
  });
  try {
    return checkedSeccomp(parseExact(text));
  } catch (cause) {
    const reason = `decoding seccomp profile failed ${quote(path)}: ${messageOf(cause)}`;
    throw new BunkerdError("Unknown", reason, { cause });
  }
}

/** Only what runtime-spec has; Docker's `archMap`, `includes` and the like are dropped, as Go's decoder drops them. */
function checkedSeccomp(parsed: unknown): Seccomp {
  if (typeof parsed !== "object" || parsed === null || Array.isArray(parsed))
    throw new Error("no JSON object");
  const { defaultAction, defaultErrnoRet, architectures, flags, listenerPath, listenerMetadata, syscalls } =
    parsed as Partial<Seccomp>;
  return {
    defaultAction: defaultAction ?? "",
    ...(defaultErrnoRet === undefined ? {} : { defaultErrnoRet }),
    architectures: architectures ?? [],
    flags: flags ?? [],
    listenerPath: listenerPath ?? "",
    listenerMetadata: listenerMetadata ?? "",
    syscalls: (syscalls ?? []).map(({ names, action, errnoRet, args }) => ({
      names,
      action,
      ...(errnoRet === undefined ? {} : { errnoRet }),
      args: (args ?? []).map(({ index, value, valueTwo = 0, op }) => ({
        index,
        value,
        ...(BigInt(valueTwo) === 0n ? {} : { valueTwo }),
        op,
      })),
    })),
  };
}

export interface ApparmorRequest {
  readonly apparmor?: SecurityProfile | undefined;
  /** The older field. */
  readonly apparmorProfile: string;
  readonly privileged: boolean;
}

/** The name of the profile; undefined for none. @throws Unknown for what cannot be, or one that is not loaded */
export async function chooseApparmor(
  request: ApparmorRequest,
  { apparmor }: HostFacts,
): Promise<string | undefined> {
  const named =
    request.apparmorProfile === "" ? undefined : profileNamed(request.apparmorProfile, "apparmor");
  const asked: Profile | undefined = request.apparmor ?? named;
  if (apparmor === undefined) {
    if (asked === undefined || asked.profileType === ProfileType.Unconfined) return undefined;
    throw refused("apparmor", "apparmor is not supported");
  }
  // Nothing said means the runtime's.
  const profile = asked ?? { profileType: ProfileType.RuntimeDefault, localhostRef: "" };
  assertLocalhost(profile, "apparmor");
  const { profileType, localhostRef } = profile;
  if (profileType === ProfileType.Unconfined) return undefined;
  if (profileType === ProfileType.RuntimeDefault) return request.privileged ? undefined : DEFAULT_PROFILE;
  if (profileType !== ProfileType.Localhost) throw refused("apparmor", "apparmor unknown ProfileType");
  const name = localhostRef.startsWith(LOCALHOST) ? localhostRef.slice(LOCALHOST.length) : localhostRef;
  if (name === "")
    throw refused("apparmor", "failed to generate apparmor spec opts: nil apparmor profile is not supported");
  if (await hasProfile(apparmor, name)) return name;
  throw refused("apparmor", `apparmor profile not found ${name}`);
}

/** Loads the runtime's own profile if need be. @throws Unknown */
export async function applyApparmor(spec: Spec, request: ApparmorRequest, host: HostFacts): Promise<void> {
  const name = await chooseApparmor(request, host);
  if (name === undefined) return;
  if (name === DEFAULT_PROFILE && host.apparmor !== undefined) await loadDefaultProfile(host.apparmor);
  spec.process.apparmorProfile = name;
}

/** The names that profiles had before CRI had a message for them. */
function profileNamed(name: string, kind: string): Profile {
  if (name === "runtime/default" || name === "docker/default") {
    return { profileType: ProfileType.RuntimeDefault, localhostRef: "" };
  }
  if (name === "unconfined") return { profileType: ProfileType.Unconfined, localhostRef: "" };
  if (!name.startsWith(LOCALHOST)) throw refused(kind, `invalid profile ${quote(name)}`);
  return { profileType: ProfileType.Localhost, localhostRef: name.slice(LOCALHOST.length) };
}

function assertLocalhost({ profileType, localhostRef }: Profile, kind: string): void {
  if (profileType === ProfileType.Localhost || localhostRef === "") return;
  throw refused(kind, `${kind} config invalid LocalhostRef must only be set if ProfileType is Localhost`);
}

function refused(kind: string, reason: string): BunkerdError {
  return new BunkerdError("Unknown", `failed to generate ${kind} spec opts: ${reason}`);
}
