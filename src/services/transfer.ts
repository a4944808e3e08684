import { create, type DescMessage, fromBinary, type MessageShape, toBinary } from "@bufbuild/protobuf";
import { type Any, AnySchema } from "@bufbuild/protobuf/wkt";
import { Transfer } from "#gen/containerd/services/transfer/v1/transfer_pb.ts";
import { ImageStoreSchema } from "#gen/containerd/types/transfer/imagestore_pb.ts";
import {
  ImageExportStreamSchema,
  ImageImportStreamSchema,
} from "#gen/containerd/types/transfer/importexport_pb.ts";
import { ProgressSchema } from "#gen/containerd/types/transfer/progress_pb.ts";
import { HTTPDebug, OCIRegistrySchema } from "#gen/containerd/types/transfer/registry_pb.ts";
import { BunkerdError, fail, quote } from "../model/errors.ts";
import { toDescriptor } from "../model/oci.ts";
import type { Scope } from "../model/scope.ts";
import type { MessageStream, StreamStore } from "../model/streams.ts";
import type { TransferEnd, TransferProgress, Transferrer } from "../model/transfer.ts";
import type { ServiceBinding } from "../transport/registry.ts";
import { bind } from "../transport/registry.ts";
import { scopeOf } from "./scope.ts";

/** containerd.services.transfer.v1.Transfer (containerd `plugins/services/transfer/service.go`). */
export function transferService(dependencies: {
  readonly transferrer: Transferrer;
  readonly streams: StreamStore;
}): ServiceBinding<typeof Transfer> {
  const { transferrer, streams } = dependencies;
  return bind(Transfer, {
    async transfer({ source, destination, options }, context) {
      const scope = scopeOf(context);
      const id = options?.progressStream ?? "";
      const progress = id === "" ? undefined : progressTo(streams.get(scope, id));
      try {
        const from = endOf(streams, scope, source, "source");
        const to = endOf(streams, scope, destination, "destination");
        if (from === undefined || to === undefined || !transferrer.goes(from, to)) {
          const message = `method Transfer not implemented for ${source?.typeUrl} to ${destination?.typeUrl}`;
          throw new BunkerdError("Unimplemented", message);
        }
        await transferrer.transfer(scope, from, to, progress?.tell);
        return {};
      } finally {
        await progress?.close();
      }
    },
  });
}

interface ProgressStream {
  readonly tell: (progress: TransferProgress) => void;
  /** Resolves when all that was told has been sent, or the client has gone. */
  close(): Promise<void>;
}

function progressTo(stream: MessageStream): ProgressStream {
  let last = Promise.resolve();
  return {
    tell(progress) {
      const message = create(AnySchema, { typeUrl: ProgressSchema.typeName, value: encode(progress) });
      // A client that does not want to know its progress any more may still want the transfer.
      last = stream.send(message).catch(() => undefined);
    },
    async close() {
      await last;
      stream.close();
    },
  };
}

function encode({
  event,
  name = "",
  parents = [],
  progress = 0,
  total = 0,
  descriptor,
}: TransferProgress): Uint8Array {
  const counts = { progress: BigInt(progress), total: BigInt(total) };
  const message = create(ProgressSchema, { event, name, parents: [...parents], ...counts });
  if (descriptor !== undefined) message.desc = toDescriptor(descriptor);
  return toBinary(ProgressSchema, message);
}

/** Undefined for what is no end. @throws InvalidArgument on what is not there or malformed, NotFound on an unknown stream */
function endOf(
  streams: StreamStore,
  scope: Scope,
  end: Any | undefined,
  role: string,
): TransferEnd | undefined {
  if (end === undefined) throw fail("InvalidArgument", `transfer without a ${role}`);
  switch (end.typeUrl.slice(end.typeUrl.lastIndexOf("/") + 1)) {
    case ImageStoreSchema.typeName:
      return { kind: "images", images: read(ImageStoreSchema, end) };
    case OCIRegistrySchema.typeName: {
      const registry = read(OCIRegistrySchema, end);
      const { authStream = "", logsStream = "", httpDebug = HTTPDebug.DISABLED } = registry.resolver ?? {};
      return {
        kind: "registry",
        registry,
        auth: authStream === "" ? undefined : streams.get(scope, authStream),
        log:
          logsStream === "" || httpDebug === HTTPDebug.DISABLED ? undefined : streams.get(scope, logsStream),
      };
    }
    case ImageImportStreamSchema.typeName: {
      const archive = read(ImageImportStreamSchema, end);
      return { kind: "import", archive, stream: streams.get(scope, archive.stream) };
    }
    case ImageExportStreamSchema.typeName: {
      const archive = read(ImageExportStreamSchema, end);
      return { kind: "export", archive, stream: streams.get(scope, archive.stream) };
    }
    default:
      return undefined;
  }
}

function read<S extends DescMessage>(schema: S, { typeUrl, value }: Any): MessageShape<S> {
  try {
    return fromBinary(schema, value);
  } catch (cause) {
    throw fail("InvalidArgument", `malformed ${quote(typeUrl)}`, { cause });
  }
}
