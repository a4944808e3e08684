/** The one place where events meet: stores and shims publish, clients subscribe. Source of the rules: containerd `core/events/exchange`. */
import type { DescMessage, MessageShape } from "@bufbuild/protobuf";
import { create, toBinary } from "@bufbuild/protobuf";
import type { Any, Timestamp } from "@bufbuild/protobuf/wkt";
import { AnySchema, TimestampSchema } from "@bufbuild/protobuf/wkt";
import type { Envelope } from "#gen/containerd/types/event_pb.ts";
import { EnvelopeSchema } from "#gen/containerd/types/event_pb.ts";
import type { Clock } from "../lib/clock.ts";
import { systemClock } from "../lib/clock.ts";
import type { Filter } from "../lib/filters.ts";
import { FilterSyntaxError, parseFilters } from "../lib/filters.ts";
import { fail, quote, within } from "../model/errors.ts";
import type { EventPublisher } from "../model/events.ts";
import { validateIdentifier } from "../model/ids.ts";
import { requireNamespace } from "../model/namespaces.ts";
import { envelopeFields } from "./fieldpath.ts";
import { Subscription } from "./subscription.ts";

/** Events that may wait for one subscriber, about five seconds of the fastest writer, before it is cut. */
const MAX_QUEUED_EVENTS = 16_384;
/** Payload bytes that may wait for one subscriber before it is cut. */
const MAX_QUEUED_BYTES = 64 * 1024 * 1024;

export interface ExchangeOptions {
  readonly maxQueuedEvents?: number;
  readonly maxQueuedBytes?: number;
  readonly clock?: Clock;
}

interface Subscriber {
  readonly filter: Filter | undefined;
  readonly subscription: Subscription;
}

/**
 * Hands each event to every subscriber whose filters match, in the order of publication. A publisher never waits: an event
 * is queued per subscriber, and one that falls behind by the limits is cut with ResourceExhausted.
 */
export class Exchange implements EventPublisher {
  readonly #maxQueuedEvents: number;
  readonly #maxQueuedBytes: number;
  readonly #clock: Clock;
  readonly #subscribers = new Set<Subscriber>();
  #closed = false;

  constructor(options: ExchangeOptions = {}) {
    this.#maxQueuedEvents = options.maxQueuedEvents ?? MAX_QUEUED_EVENTS;
    this.#maxQueuedBytes = options.maxQueuedBytes ?? MAX_QUEUED_BYTES;
    this.#clock = options.clock ?? systemClock();
  }

  /** How many subscriptions are open. */
  get subscribers(): number {
    return this.#subscribers.size;
  }

  /** Whether somebody would be told of such an event. */
  reaches<Desc extends DescMessage>(
    namespace: string,
    topic: string,
    schema: Desc,
    event: MessageShape<Desc>,
  ): boolean {
    if (this.#subscribers.size === 0) return false;
    const packed = create(AnySchema, { typeUrl: schema.typeName, value: toBinary(schema, event) });
    const field = envelopeFields(create(EnvelopeSchema, { namespace, topic, event: packed }));
    return [...this.#subscribers].some(({ filter }) => filter === undefined || filter.match({ field }));
  }

  publish<Desc extends DescMessage>(
    namespace: string,
    topic: string,
    schema: Desc,
    event: MessageShape<Desc> | (() => MessageShape<Desc>),
  ): void {
    validatePublication(namespace, topic);
    if (this.#subscribers.size === 0) return;
    // Not `type.googleapis.com/…`: containerd's type urls of its own messages are the bare name (typeurl.TypeURL).
    const message = typeof event === "function" ? event() : event;
    const packed = create(AnySchema, { typeUrl: schema.typeName, value: toBinary(schema, message) });
    this.#broadcast(namespace, topic, timestampOf(this.#clock.now()), packed);
  }

  /** Publishes an event that is already packed. @throws FailedPrecondition without a namespace, InvalidArgument */
  publishAny(namespace: string, topic: string, event: Any | undefined): void {
    validatePublication(namespace, topic);
    this.#broadcast(namespace, topic, timestampOf(this.#clock.now()), event);
  }

  /**
   * Distributes an event on behalf of another publisher, with its timestamp.
   * @throws InvalidArgument on a bad namespace or topic, or without a timestamp
   */
  forward(envelope: Envelope): void {
    const { namespace, topic, timestamp, event } = envelope;
    validated(
      () => "event envelope has invalid namespace",
      () => validateIdentifier(namespace),
    );
    validateTopic(topic);
    if (timestamp === undefined || isZeroTime(timestamp)) {
      throw fail("InvalidArgument", "timestamp must be set on forwarded event");
    }
    this.#broadcast(namespace, topic, timestamp, event);
  }

  /**
   * Events from now on, of every namespace, that match any of the filters (all, if there is none). Subscribed when this
   * returns, not at the first `next`. Ends when `signal` aborts.
   * @throws InvalidArgument on a filter's syntax, at once; ResourceExhausted from `next` when the subscriber was too slow
   */
  subscribe(filters: readonly string[], signal?: AbortSignal): AsyncIterableIterator<Envelope> {
    const filter = filters.length === 0 ? undefined : parseSubscriptionFilters(filters);
    const subscription = new Subscription(
      { maxEvents: this.#maxQueuedEvents, maxBytes: this.#maxQueuedBytes },
      () => this.#subscribers.delete(subscriber),
    );
    const subscriber: Subscriber = { filter, subscription };
    this.#subscribers.add(subscriber);
    if (this.#closed) subscription.end(closedError());
    else subscription.endOnAbort(signal);
    return subscription;
  }

  /** Ends every subscription with Unavailable. Publishing stays allowed: what shuts down late still may. */
  close(): void {
    this.#closed = true;
    for (const { subscription } of [...this.#subscribers]) subscription.end(closedError());
  }

  #broadcast(namespace: string, topic: string, timestamp: Timestamp, event: Any | undefined): void {
    if (this.#subscribers.size === 0) return;
    // Built anew, also when forwarded: unknown fields of a client's envelope stay behind, as in containerd.
    const { typeUrl = "", value = new Uint8Array() } = event ?? {};
    const envelope = create(EnvelopeSchema, { timestamp, namespace, topic });
    if (event !== undefined) envelope.event = create(AnySchema, { typeUrl, value });
    const sizeBytes = value.length + typeUrl.length + topic.length;
    const field = envelopeFields(envelope);
    for (const { filter, subscription } of this.#subscribers) {
      if (filter === undefined || filter.match({ field })) subscription.push(envelope, sizeBytes);
    }
  }
}

function parseSubscriptionFilters(filters: readonly string[]): Filter {
  try {
    return parseFilters(filters);
  } catch (error) {
    if (!(error instanceof FilterSyntaxError)) throw error;
    throw fail("InvalidArgument", `failed parsing subscription filters: ${error.message}`, { cause: error });
  }
}

function closedError(): Error {
  return fail("Unavailable", "event exchange is closed");
}

const NANOSECONDS_PER_SECOND = 1_000_000_000n;

function timestampOf(nanoseconds: bigint): Timestamp {
  const nanos = Number(nanoseconds % NANOSECONDS_PER_SECOND);
  return create(TimestampSchema, { seconds: nanoseconds / NANOSECONDS_PER_SECOND, nanos });
}

function validated<T>(context: () => string, check: () => T): T {
  try {
    return check();
  } catch (error) {
    throw within(context(), error);
  }
}

function validatePublication(namespace: string, topic: string): void {
  try {
    requireNamespace(namespace);
  } catch (error) {
    throw within("failed publishing event", error);
  }
  validateTopic(topic);
}

/** The daemon's own topics are few, a client's may be any. */
const MAX_KNOWN_TOPICS = 256;
/** Topics that were found valid. */
const knownTopics = new Set<string>();

function validateTopic(topic: string): void {
  if (knownTopics.has(topic)) return;
  checkTopic(topic);
  if (knownTopics.size < MAX_KNOWN_TOPICS) knownTopics.add(topic);
}

function checkTopic(topic: string): void {
  const invalid = (rule: string) => fail("InvalidArgument", `envelope topic ${quote(topic)}: ${rule}`);
  if (topic === "") throw invalid("must not be empty");
  if (!topic.startsWith("/")) throw invalid("must start with '/'");
  if (topic === "/") throw invalid("must have at least one component");
  for (const component of topic.slice(1).split("/")) {
    const context = () =>
      `envelope topic ${quote(topic)}: failed validation on component ${quote(component)}`;
    validated(context, () => validateIdentifier(component));
  }
}

/** Go's zero time, year 1, counts as not set, as it does after a trip through containerd. */
const ZERO_TIME_SECONDS = -62_135_596_800n;

function isZeroTime(timestamp: Timestamp): boolean {
  return timestamp.seconds === ZERO_TIME_SECONDS && timestamp.nanos === 0;
}
