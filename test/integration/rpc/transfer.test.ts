import { create, type DescMessage, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { type Any, AnySchema } from "@bufbuild/protobuf/wkt";
import { StreamInitSchema, Streaming } from "#gen/containerd/services/streaming/v1/streaming_pb.ts";
import { Transfer } from "#gen/containerd/services/transfer/v1/transfer_pb.ts";
import { ImageStoreSchema } from "#gen/containerd/types/transfer/imagestore_pb.ts";
import {
  ImageExportStreamSchema,
  ImageImportStreamSchema,
} from "#gen/containerd/types/transfer/importexport_pb.ts";
import { OCIRegistrySchema } from "#gen/containerd/types/transfer/registry_pb.ts";
import { DataSchema } from "#gen/containerd/types/transfer/streaming_pb.ts";
import { compareSteps, departs, none, type Step, step } from "../../support/comparison.ts";
import { inNamespace } from "../../support/grpc.ts";

function pack<S extends DescMessage>(schema: S, message: MessageInitShape<S>): Any {
  const value = toBinary(schema, create(schema, message));
  return create(AnySchema, { typeUrl: schema.typeName, value });
}

const images = pack(ImageStoreSchema, { name: "example.org/none:1" });
const named = pack(ImageStoreSchema, { name: "example.org/other:1" });
const registry = pack(OCIRegistrySchema, { reference: "localhost:1/none:1" });
const importing = pack(ImageImportStreamSchema, { stream: "none" });
const exporting = pack(ImageExportStreamSchema, { stream: "none" });
const data = pack(DataSchema, {});

/** A stream with one call beside it; answers what came over the stream. */
function beside(
  name: string,
  id: string,
  request: MessageInitShape<typeof Transfer.method.transfer.input>,
  shows: RegExp,
): Step {
  const call: Step["call"] = async (connection) => {
    const open = Promise.withResolvers<void>();
    async function* requests() {
      yield init({ id });
      await open.promise;
    }
    const messages: string[] = [];
    let failure = "";
    for await (const message of connection.client(Streaming).stream(requests(), inNamespace("default"))) {
      messages.push(message.typeUrl);
      if (messages.length > 1) continue;
      await connection
        .client(Transfer)
        .transfer(request, inNamespace("default"))
        .catch((error: unknown) => {
          failure = String(error);
        });
      open.resolve();
    }
    return { messages, failure };
  };
  return { name: `Streaming.Stream beside Transfer: ${name}`, call, shows };
}

function init(message: MessageInitShape<typeof StreamInitSchema>): Any {
  return pack(StreamInitSchema, message);
}

/** containerd does not say which. */
const noStream = { code: "NotFound", message: 'stream "none": not found' };
const to = (source: Any, destination: Any, progressStream = "") => ({
  source,
  destination,
  options: { progressStream },
});

compareSteps([
  step(Transfer, "transfer", to(images, named), /namespace is required/, none),
  step(Transfer, "transfer", to(images, named), /image .*example.org\/none:1.*not found/),
  step(Transfer, "transfer", to(images, registry), /not found/),
  step(Transfer, "transfer", to(data, images), /Unimplemented/),
  step(Transfer, "transfer", to(registry, registry), /Unimplemented/),
  departs(
    { code: "Unimplemented", message: /^method Transfer not implemented for no.Such to/ },
    step(
      Transfer,
      "transfer",
      to(create(AnySchema, { typeUrl: "no.Such" }), images),
      /type with url no.Such: not found/,
    ),
  ),
  departs(noStream, step(Transfer, "transfer", to(images, exporting), /NotFound/)),
  departs(noStream, step(Transfer, "transfer", to(importing, images), /NotFound/)),
  departs(noStream, step(Transfer, "transfer", to(images, named, "none"), /NotFound/)),
  beside("tag", "p1", to(images, named, "p1"), /not found/),
]);
