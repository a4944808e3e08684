import { connect } from "node:net";
import { fromBinary } from "@bufbuild/protobuf";
import { AnySchema } from "@bufbuild/protobuf/wkt";
import { createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { Events } from "#gen/containerd/services/events/v1/events_pb.ts";
import { DEFAULT_ADDRESS } from "../config/config.ts";
import { BunkerdError, messageOf } from "../model/errors.ts";

export interface PublishOptions {
  readonly address?: string;
  readonly topic: string;
  readonly namespace: string;
}

/** Publishes the Any on stdin at the daemon's socket: containerd's `cmd/containerd/command/publish.go`. @throws what the daemon answers */
export async function runPublish({
  address = DEFAULT_ADDRESS,
  topic,
  namespace,
}: PublishOptions): Promise<void> {
  const event = decodePayload(new Uint8Array(await Bun.stdin.arrayBuffer()));
  const path = address.replace(/^unix:(?:\/\/)?/, "");
  const transport = createGrpcTransport({
    baseUrl: "http://localhost",
    nodeOptions: { createConnection: () => connect(path) },
  });
  await createClient(Events, transport).publish(
    { topic, event },
    { headers: { "containerd-namespace": namespace } },
  );
}

/** @throws InvalidArgument */
function decodePayload(bytes: Uint8Array) {
  try {
    return fromBinary(AnySchema, bytes);
  } catch (error) {
    throw new BunkerdError(
      "InvalidArgument",
      `event on stdin is no google.protobuf.Any: ${messageOf(error)}`,
      { cause: error },
    );
  }
}
