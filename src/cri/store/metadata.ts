/** What containerd's CRI keeps of pods and containers in the records' extensions (`internal/cri/store/{sandbox,container}/metadata.go`). */
import { create } from "@bufbuild/protobuf";
import { type Any, AnySchema } from "@bufbuild/protobuf/wkt";
import {
  type ContainerConfig,
  ContainerConfigSchema,
  type PodSandboxConfig,
  PodSandboxConfigSchema,
} from "#gen/runtime/v1/api_pb.ts";
import { parseExact } from "../../client/spec.ts";
import { BunkerdError, fail, messageOf } from "../../model/errors.ts";
import { fromGo, type GoValue, goText, toGo } from "./go-json.ts";

/** In the extensions of a sandbox record; those of container records are in `spec/labels.ts`. */
export const RECORD_EXTENSION = "metadata";

const SANDBOX_TYPE_URL = "github.com/containerd/cri/pkg/store/sandbox/Metadata";
const CONTAINER_TYPE_URL = "github.com/containerd/cri/pkg/store/container/Metadata";
const VERSION = "v1";

/** What does not change of a pod once it runs. */
export interface SandboxMetadata {
  readonly id: string;
  /** Unique: made from the pod's name, namespace, uid and attempt. */
  readonly name: string;
  readonly config: PodSandboxConfig;
  /** Empty for the host's network. */
  readonly netnsPath: string;
  readonly ip: string;
  readonly additionalIps: readonly string[];
  readonly runtimeHandler: string;
  /** go-cni's `Result`, as JSON; undefined until the network is set up. */
  readonly cniResult: GoValue | undefined;
  readonly processLabel: string;
}

/** What does not change of a container. */
export interface ContainerMetadata {
  readonly id: string;
  /** Unique: made from the container's name and attempt and the pod's. */
  readonly name: string;
  readonly sandboxId: string;
  readonly config: ContainerConfig;
  /** Digest of the image's config. */
  readonly imageRef: string;
  /** Digest of the image's target. */
  readonly imageDigest: string;
  readonly imageName: string;
  /** Absolute; empty for no log. */
  readonly logPath: string;
  /** Such as `SIGTERM`; empty for the default. */
  readonly stopSignal: string;
  readonly processLabel: string;
}

export function packSandboxMetadata(metadata: SandboxMetadata): Any {
  return pack(SANDBOX_TYPE_URL, sandboxMetadataToGo(metadata));
}

/** As it stands in the extension, and in the verbose status. */
export function sandboxMetadataToGo(metadata: SandboxMetadata): GoValue {
  return {
    Version: VERSION,
    Metadata: {
      ID: metadata.id,
      Name: metadata.name,
      Config: toGo(PodSandboxConfigSchema, metadata.config),
      NetNSPath: metadata.netnsPath,
      IP: metadata.ip,
      AdditionalIPs: metadata.additionalIps.length === 0 ? null : metadata.additionalIps,
      RuntimeHandler: metadata.runtimeHandler,
      CNIResult: metadata.cniResult ?? null,
      ProcessLabel: metadata.processLabel,
    },
  };
}

/** @throws InvalidArgument */
export function unpackSandboxMetadata(extension: Any): SandboxMetadata {
  const fields = unpack(extension, SANDBOX_TYPE_URL);
  return {
    id: text(fields["ID"]),
    name: text(fields["Name"]),
    config: fromGo(PodSandboxConfigSchema, fields["Config"] ?? {}),
    netnsPath: text(fields["NetNSPath"]),
    ip: text(fields["IP"]),
    additionalIps: (fields["AdditionalIPs"] ?? []) as readonly string[],
    runtimeHandler: text(fields["RuntimeHandler"]),
    cniResult: (fields["CNIResult"] ?? undefined) as GoValue | undefined,
    processLabel: text(fields["ProcessLabel"]),
  };
}

export function packContainerMetadata(metadata: ContainerMetadata): Any {
  return pack(CONTAINER_TYPE_URL, {
    Version: VERSION,
    Metadata: {
      ID: metadata.id,
      Name: metadata.name,
      SandboxID: metadata.sandboxId,
      Config: toGo(ContainerConfigSchema, metadata.config),
      ImageRef: metadata.imageRef,
      ImageDigest: metadata.imageDigest,
      ImageName: metadata.imageName,
      LogPath: metadata.logPath,
      StopSignal: metadata.stopSignal,
      ProcessLabel: metadata.processLabel,
    },
  });
}

/** @throws InvalidArgument */
export function unpackContainerMetadata(extension: Any): ContainerMetadata {
  const fields = unpack(extension, CONTAINER_TYPE_URL);
  return {
    id: text(fields["ID"]),
    name: text(fields["Name"]),
    sandboxId: text(fields["SandboxID"]),
    config: fromGo(ContainerConfigSchema, withEnvAsBytes(fields)),
    imageRef: text(fields["ImageRef"]),
    imageDigest: text(fields["ImageDigest"]),
    imageName: text(fields["ImageName"]),
    logPath: text(fields["LogPath"]),
    stopSignal: text(fields["StopSignal"]),
    processLabel: text(fields["ProcessLabel"]),
  };
}

/** A variable's value is bytes, so base64 in JSON, since CRI of Kubernetes 1.36. Who does not write down the image's digest is older, and wrote text. */
function withEnvAsBytes(fields: Readonly<Record<string, unknown>>): unknown {
  const config = (fields["Config"] ?? {}) as { readonly envs?: readonly { readonly value?: string }[] };
  if ("ImageDigest" in fields || config.envs === undefined) return config;
  const envs = config.envs.map((one) => ({ ...one, value: Buffer.from(one.value ?? "").toString("base64") }));
  return { ...config, envs };
}

function pack(typeUrl: string, value: GoValue): Any {
  return create(AnySchema, { typeUrl, value: new TextEncoder().encode(goText(value)) });
}

function unpack({ typeUrl, value }: Any, expected: string): Readonly<Record<string, unknown>> {
  if (typeUrl !== expected) throw fail("InvalidArgument", `extension of type ${typeUrl} is no ${expected}`);
  let document: unknown;
  try {
    document = parseExact(new TextDecoder("utf-8", { fatal: true }).decode(value));
  } catch (cause) {
    throw new BunkerdError("InvalidArgument", `${expected} is no JSON: ${messageOf(cause)}`, { cause });
  }
  const { Version, Metadata } = document as { Version?: unknown; Metadata?: unknown };
  if (Version !== VERSION) {
    throw new BunkerdError("InvalidArgument", `${expected}: unsupported version: ${JSON.stringify(Version)}`);
  }
  if (typeof Metadata !== "object" || Metadata === null)
    throw fail("InvalidArgument", `${expected} is empty`);
  return Metadata as Readonly<Record<string, unknown>>;
}

function text(value: unknown): string {
  return typeof value === "string" ? value : "";
}
