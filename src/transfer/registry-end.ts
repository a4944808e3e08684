import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { AnySchema } from "@bufbuild/protobuf/wkt";
import {
  AuthRequestSchema,
  AuthResponseSchema,
  AuthType,
  HTTPDebug,
  type OCIRegistry,
} from "#gen/containerd/types/transfer/registry_pb.ts";
import type { Logger } from "../lib/log.ts";
import { KeyedMutex } from "../lib/semaphore.ts";
import { fail } from "../model/errors.ts";
import type { CredentialSource, Credentials } from "../model/remotes.ts";
import type { MessageStream } from "../model/streams.ts";
import type { ResolverOptions } from "../registry/resolver.ts";
import { sendBytes } from "./byte-streams.ts";

/** What the client says of a registry, as the resolver takes it (containerd `core/transfer/registry`). */
export function resolverOptionsOf(
  { reference, resolver }: OCIRegistry,
  streams: { readonly auth?: MessageStream | undefined; readonly log?: MessageStream | undefined },
  defaults: { readonly hostsDirectory: string; readonly logger: Logger },
): ResolverOptions {
  const { auth, log } = streams;
  const { logger } = defaults;
  const hostsDirectory = resolver?.hostDir || defaults.hostsDirectory;
  const dumps = (resolver?.httpDebug ?? HTTPDebug.DISABLED) !== HTTPDebug.DISABLED;
  return {
    logger,
    ...(hostsDirectory === "" ? {} : { hostsDirectory }),
    ...(resolver === undefined || resolver.defaultScheme === ""
      ? {}
      : { defaultScheme: resolver.defaultScheme }),
    ...(resolver === undefined ? {} : { headers: resolver.headers }),
    ...(auth === undefined ? {} : { credentials: credentialsFrom(auth, reference) }),
    ...(dumps ? { dump: log === undefined ? (text) => logger.info(text) : dumpTo(log, logger) } : {}),
  };
}

/** Asks the client, one question after the other: answers bear no name. */
function credentialsFrom(stream: MessageStream, reference: string): CredentialSource {
  const turns = new KeyedMutex();
  return ({ host, challenges }) =>
    turns.hold("", undefined, async () => {
      const request = create(AuthRequestSchema, { host, reference, wwwauthenticate: [...challenges] });
      const value = toBinary(AuthRequestSchema, request);
      await stream.send(create(AnySchema, { typeUrl: AuthRequestSchema.typeName, value }));
      const answer = await stream.receive();
      if (answer === undefined)
        throw fail("Canceled", `the client answers no question for credentials of ${host}`);
      return credentialsOf(answer.value, host);
    });
}

/** @throws InvalidArgument */
function credentialsOf(bytes: Uint8Array, host: string): Credentials | undefined {
  try {
    const { authType, username, secret } = fromBinary(AuthResponseSchema, bytes);
    if (secret === "") return undefined;
    if (authType === AuthType.HEADER) return { header: secret };
    return authType === AuthType.CREDENTIALS ? { username, secret } : { secret };
  } catch (cause) {
    throw fail("InvalidArgument", `malformed credentials for ${host} on a stream`, { cause });
  }
}

/** The client's own log of requests. A client that does not listen misses it. */
function dumpTo(stream: MessageStream, logger: Logger): (text: string) => void {
  const sender = sendBytes(stream);
  let last = Promise.resolve();
  return (text) => {
    last = last
      .then(() => sender.write(Buffer.from(text)))
      .catch((error: unknown) => logger.debug("log of requests is not taken by the client", { error }));
  };
}
