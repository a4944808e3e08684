/** Random metadata written over gRPC, and everything that a daemon knows read back, to compare two daemons' views of one database. */
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { AnySchema } from "@bufbuild/protobuf/wkt";
import { ConnectError } from "@connectrpc/connect";
import { type ContainerSchema, Containers } from "#gen/containerd/services/containers/v1/containers_pb.ts";
import { Leases } from "#gen/containerd/services/leases/v1/leases_pb.ts";
import { Namespaces } from "#gen/containerd/services/namespaces/v1/namespaces_pb.ts";
import { Store } from "#gen/containerd/services/sandbox/v1/sandbox_pb.ts";
import type { Daemon } from "./daemons.ts";
import { type Connection, connectGrpc, inNamespace } from "./grpc.ts";
import type { Random } from "./random.ts";

const NAMESPACES = ["default", "k8s.io", "moby"] as const;
const IDS = 60;
const SPEC_TYPE = "types.containerd.io/opencontainers/runtime-spec/1/Spec";

/** An `Any` with JSON inside, as OCI specs travel. */
export function jsonAny(value: unknown, typeUrl = SPEC_TYPE): { typeUrl: string; value: Uint8Array } {
  return { typeUrl, value: new TextEncoder().encode(JSON.stringify(value)) };
}

/** A container with a spec of about `sizeBytes`. */
export function containerOf(id: string, sizeBytes = 64): MessageInitShape<typeof ContainerSchema> {
  return {
    id,
    runtime: { name: "io.containerd.runc.v2" },
    spec: jsonAny({ ociVersion: "1.2.0", annotations: { filler: "x".repeat(Math.max(0, sizeBytes - 60)) } }),
  };
}

/** Makes `calls` random changes. Failures that the random choice brings about (exists, not found) are part of it. */
export async function changeAtRandom(daemon: Daemon, random: Random, calls: number): Promise<void> {
  await using connection = connectGrpc(daemon.socket);
  for (let n = 0; n < calls; n++) {
    try {
      await changeOnce(connection, random, daemon.kind !== "containerd-1.6");
    } catch (error) {
      if (!(error instanceof ConnectError) || !/already exists|not found/.test(error.rawMessage)) throw error;
    }
  }
}

async function changeOnce(connection: Connection, random: Random, hasSandboxes: boolean): Promise<void> {
  const id = `c${random.below(IDS)}`;
  const options = inNamespace(random.pick(NAMESPACES));
  const labels = { [random.text(4)]: random.text(random.below(200)), kind: random.pick(["a", "b"]) };
  const containers = connection.client(Containers);
  const leases = connection.client(Leases);
  switch (random.below(hasSandboxes ? 9 : 7)) {
    case 0:
    case 1: {
      const size = random.pick([0, 100, 5_000, 70_000]);
      const extension: MessageInitShape<typeof AnySchema> = jsonAny({ n: random.below(9) }, "x/y");
      const extensions = random.below(3) === 0 ? { "my.ext": create(AnySchema, extension) } : undefined;
      await containers.create(
        { container: { ...containerOf(id, size), labels, ...(extensions && { extensions }) } },
        options,
      );
      return;
    }
    case 2:
      await containers.update({ container: { id, labels }, updateMask: { paths: ["labels"] } }, options);
      return;
    case 3:
      await containers.delete({ id }, options);
      return;
    case 4:
      await leases.create({ id: `l${random.below(9)}`, labels }, options);
      return;
    case 5:
      await leases.delete({ id: `l${random.below(9)}` }, options);
      return;
    case 6:
      await connection.client(Namespaces).update(
        {
          namespace: { name: random.pick(NAMESPACES), labels: { where: random.text(3) } },
        },
        options,
      );
      return;
    case 7: {
      const sandbox = { sandboxId: `s${id}`, runtime: { name: "r" }, spec: jsonAny({ a: 1 }), labels };
      await connection.client(Store).create({ sandbox }, options);
      return;
    }
    default:
      await connection.client(Store).delete({ sandboxId: `s${id}` }, options);
  }
}

export interface Contents {
  readonly namespaces: unknown;
  readonly containers: unknown;
  readonly leases: unknown;
  readonly sandboxes: unknown;
}

/** Everything in the database, as the daemon tells it. A daemon of 1.6 tells nothing of sandboxes. */
export async function contentsOf(daemon: Daemon): Promise<Contents> {
  await using connection = connectGrpc(daemon.socket);
  const { namespaces } = await connection.client(Namespaces).list({});
  namespaces.sort((a, b) => a.name.localeCompare(b.name));
  const inEach = async <T>(list: (name: string) => Promise<T>): Promise<Record<string, T>> =>
    Object.fromEntries(
      await Promise.all(namespaces.map(async ({ name }) => [name, await list(name)] as const)),
    );
  return plain({
    namespaces,
    containers: await inEach((name) => connection.client(Containers).list({}, inNamespace(name))),
    leases: await inEach((name) => connection.client(Leases).list({}, inNamespace(name))),
    sandboxes:
      daemon.kind === "containerd-1.6"
        ? undefined
        : await inEach((name) => connection.client(Store).list({}, inNamespace(name))),
  });
}

function plain<T>(value: T): T {
  return JSON.parse(
    JSON.stringify(value, (_key, each: unknown) => {
      if (each instanceof Uint8Array) return Buffer.from(each).toString("latin1");
      return typeof each === "bigint" ? String(each) : each;
    }),
  ) as T;
}
