import { fromBinary } from "@bufbuild/protobuf";
import { type Any, AnySchema } from "@bufbuild/protobuf/wkt";
import { Events } from "#gen/containerd/services/events/v1/events_pb.ts";
import { Client } from "../client/client.ts";
import { callOptions } from "../client/remote.ts";
import { fromConnectError } from "../client/status.ts";
import { DEFAULT_ADDRESS } from "../config/address.ts";
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
  const client = new Client(address);
  try {
    await client.service(Events).publish({ topic, event }, callOptions({ namespace }));
  } catch (error) {
    throw fromConnectError(error, address);
  } finally {
    client.close();
  }
}

/** @throws InvalidArgument */
function decodePayload(bytes: Uint8Array): Any {
  try {
    return fromBinary(AnySchema, bytes);
  } catch (error) {
    const message = `event on stdin is no google.protobuf.Any: ${messageOf(error)}`;
    throw new BunkerdError("InvalidArgument", message, { cause: error });
  }
}
