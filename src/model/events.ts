import type { DescMessage, MessageShape } from "@bufbuild/protobuf";

/** Where stores publish what happened, after it is durable. Implemented by `events/exchange.ts`. */
export interface EventPublisher {
  /**
   * Never blocks and never waits for a subscriber.
   * @param event or what makes it, called before this returns, but not where nobody listens
   * @param topic such as `/containers/create` @throws InvalidArgument on a malformed topic or namespace
   */
  publish<Desc extends DescMessage>(
    namespace: string,
    topic: string,
    schema: Desc,
    event: MessageShape<Desc> | (() => MessageShape<Desc>),
  ): void;
}
