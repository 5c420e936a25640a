import { createHash } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { GROUP } from '../api/names.ts';
import type { KubeObject } from '../api/objects.ts';
import { resources } from '../api/resources.ts';
import { dropOldest } from '../runtime/bounded-map.ts';
import type { KubeClient } from '../runtime/client.ts';
import { ApiError, isAlreadyExists, isNotFound } from '../runtime/errors.ts';
import type { Logger } from './logger.ts';
import { redactText } from './redact.ts';

/** The object that an event is about. */
export interface ObjectReferenceSource {
  apiVersion?: string;
  kind?: string;
  metadata: { name: string; namespace?: string; uid?: string; resourceVersion?: string };
}

export interface EventRecorderOptions {
  client: Pick<KubeClient, 'create' | 'mergePatch'>;
  logger: Logger;
  /** Told of everything that is told here, before anything is dropped. It must not throw. */
  onTold?: (about: ObjectReferenceSource, reason: string, message: string) => void;
  /** Called for each event that isn't recorded. */
  onDropped?: () => void;
  /** Qualified name; default `automationguardrails.dev/operator`. */
  component?: string;
  /** Name of this process, such as its pod's; default `operator`. */
  instance?: string;
  /** Milliseconds since the epoch. */
  clock?: () => number;
  /** Ends after the time, or when the signal aborts; never rejects. */
  sleep?: (ms: number, signal: AbortSignal) => Promise<void>;
  /** Events that may wait to be written; default 1000. */
  maxPending?: number;
}

/** An `events.k8s.io/v1` Event. */
interface Event extends KubeObject {
  /** RFC 3339 with microseconds. */
  eventTime: string;
  type: 'Normal' | 'Warning';
  reason: string;
  action: string;
  note: string;
  regarding: object;
  reportingController: string;
  reportingInstance: string;
}

/** Repeats of one event, and where they are kept. */
interface Series {
  event: Event;
  /** Occurrences seen; those written may be fewer. */
  count: number;
  /** Milliseconds since the epoch. */
  lastObserved: number;
  /** It stands in the API. */
  isRecorded: boolean;
  /** It waits in the queue. */
  isPending: boolean;
}

/** A repeat within this time counts in the series of the first. */
const seriesMs = 600_000;
const maxSeries = 4_096;
/** As client-go's: 25 events of one object at once, then one every five minutes. */
const burst = 25;
const refillMs = 300_000;
const maxBuckets = 4_096;
const maxTries = 3;
const firstPauseMs = 1_000;
/** Bytes; the API server refuses more. */
const maxNote = 1_024;
const maxField = 128;

/**
 * Records Kubernetes events in the background. A repeat of the same event counts in its series
 * instead of making another; an object that makes too many is throttled; what can't be written is
 * dropped and counted. Nothing here throws, and nothing waits for it.
 *
 * The name of an Event is a function of what it says and when, so replicas that see the same thing
 * record it once.
 */
export class EventRecorder {
  readonly #client: EventRecorderOptions['client'];
  readonly #logger: Logger;
  readonly #onTold: EventRecorderOptions['onTold'];
  readonly #onDropped: () => void;
  readonly #component: string;
  readonly #instance: string;
  readonly #clock: () => number;
  readonly #sleep: (ms: number, signal: AbortSignal) => Promise<void>;
  readonly #maxPending: number;
  /** By what the event says; least recently seen first. */
  readonly #series = new Map<string, Series>();
  /** Events that each object may still make; least recently used first. */
  readonly #buckets = new Map<string, { tokens: number; at: number }>();
  #pending: Series[] = [];
  #writing: Promise<void> | undefined;
  #work = new AbortController();

  constructor(options: EventRecorderOptions) {
    this.#client = options.client;
    this.#logger = options.logger;
    this.#onTold = options.onTold;
    this.#onDropped = options.onDropped ?? ((): void => undefined);
    this.#component = options.component ?? `${GROUP}/operator`;
    this.#instance = truncate(options.instance ?? 'operator', maxField);
    this.#clock = options.clock ?? Date.now;
    this.#sleep =
      options.sleep ??
      ((ms, signal) => delay(ms, undefined, { signal, ref: false }).catch(() => undefined));
    this.#maxPending = options.maxPending ?? 1_000;
  }

  /** Something went as it should. @param reason CamelCase, stable */
  normal(about: ObjectReferenceSource, reason: string, message: string): void {
    this.#record('Normal', about, reason, message);
  }

  /** Somebody should look at this. @param reason CamelCase, stable */
  warning(about: ObjectReferenceSource, reason: string, message: string): void {
    this.#record('Warning', about, reason, message);
  }

  /** Writes what waits; what isn't written in time is dropped. Never rejects. */
  async flush({ timeoutMs = 2_000 }: { timeoutMs?: number } = {}): Promise<void> {
    const work = this.#work;
    const timer = setTimeout(() => work.abort(), timeoutMs);
    await this.#writing;
    clearTimeout(timer);
    if (work.signal.aborted) this.#work = new AbortController();
  }

  #record(
    type: Event['type'],
    about: ObjectReferenceSource,
    reason: string,
    message: string,
  ): void {
    try {
      this.#onTold?.(about, reason, message);
      const now = this.#clock();
      const event = this.#eventOf(type, about, reason, message, now);
      const key = `${identityOf(about)}\n${type}\n${event.reason}\n${event.note}`;
      const series = this.#seriesOf(key, event, now);
      series.lastObserved = now;
      series.count += 1;
      if (series.isPending) return;
      if (this.#pending.length >= this.#maxPending || !this.#takeToken(about, now)) {
        this.#onDropped();
        return;
      }
      series.isPending = true;
      this.#pending.push(series);
      this.#writing ??= this.#write();
    } catch (error) {
      this.#onDropped();
      this.#logger.warn('Event could not be made', { error, reason });
    }
  }

  #seriesOf(key: string, event: Event, now: number): Series {
    const known = this.#series.get(key);
    this.#series.delete(key);
    const series =
      known !== undefined && now - known.lastObserved < seriesMs
        ? known
        : { event, count: 0, lastObserved: now, isRecorded: false, isPending: false };
    this.#series.set(key, series);
    dropOldest(this.#series, maxSeries);
    return series;
  }

  #takeToken(about: ObjectReferenceSource, now: number): boolean {
    const key = identityOf(about);
    const bucket = this.#buckets.get(key) ?? { tokens: burst, at: now };
    this.#buckets.delete(key);
    const tokens = Math.min(burst, bucket.tokens + Math.max(0, now - bucket.at) / refillMs);
    const isAllowed = tokens >= 1;
    this.#buckets.set(key, { tokens: isAllowed ? tokens - 1 : tokens, at: now });
    dropOldest(this.#buckets, maxBuckets);
    return isAllowed;
  }

  /** Writes one after another until nothing waits. Never rejects. */
  async #write(): Promise<void> {
    // A burst in one turn of the event loop is one series already when it is written.
    await Promise.resolve();
    for (let series = this.#pending.shift(); series !== undefined; series = this.#pending.shift()) {
      series.isPending = false;
      await this.#writeOne(series, this.#work.signal);
    }
    this.#writing = undefined;
  }

  async #writeOne(series: Series, signal: AbortSignal): Promise<void> {
    for (let tries = 1; ; tries++) {
      if (signal.aborted) return this.#drop(series, signal.reason);
      try {
        return await this.#send(series, signal);
      } catch (error) {
        if (isFinal(error) || tries === maxTries) return this.#drop(series, error);
        await this.#sleep(firstPauseMs * 2 ** (tries - 1), signal);
      }
    }
  }

  async #send(series: Series, signal: AbortSignal): Promise<void> {
    const { event, count, lastObserved } = series;
    const seriesPart = { count, lastObservedTime: microTime(lastObserved) };
    if (series.isRecorded) {
      try {
        const { namespace = '', name } = event.metadata;
        const patch = { series: seriesPart };
        await this.#client.mergePatch(resources.events, { namespace, name }, patch, { signal });
        return;
      } catch (error) {
        if (!isNotFound(error)) throw error;
        series.isRecorded = false;
      }
    }
    try {
      // The API server refuses a series of one.
      const body = count > 1 ? { ...event, series: seriesPart } : event;
      await this.#client.create(resources.events, body, { signal });
    } catch (error) {
      if (!isAlreadyExists(error)) throw error;
    }
    series.isRecorded = true;
  }

  #drop({ event: { reason, regarding } }: Series, error: unknown): void {
    this.#onDropped();
    this.#logger.warn('Event could not be recorded', { error, reason, regarding });
  }

  #eventOf(
    type: Event['type'],
    about: ObjectReferenceSource,
    reason: string,
    message: string,
    now: number,
  ): Event {
    const { name, namespace, uid, resourceVersion } = about.metadata;
    const note = truncate(redactText(message), maxNote);
    const says = [identityOf(about), type, reason, note, Math.floor(now / seriesMs)];
    const digest = createHash('sha256').update(JSON.stringify(says)).digest('hex').slice(0, 16);
    return {
      apiVersion: 'events.k8s.io/v1',
      kind: 'Event',
      // Of an object without a namespace, the API server wants them in `default`.
      metadata: { name: `${name.slice(0, 236)}.${digest}`, namespace: namespace ?? 'default' },
      eventTime: microTime(now),
      type,
      reason: truncate(reason, maxField),
      action: 'Reconcile',
      note,
      regarding: {
        apiVersion: about.apiVersion,
        kind: about.kind,
        name,
        namespace,
        uid,
        resourceVersion,
      },
      reportingController: this.#component,
      reportingInstance: this.#instance,
    };
  }
}

function identityOf({ kind = '', metadata }: ObjectReferenceSource): string {
  return `${kind} ${metadata.namespace ?? ''}/${metadata.name} ${metadata.uid ?? ''}`;
}

/** Another try would fail in the same way. */
function isFinal(error: unknown): boolean {
  return error instanceof ApiError && error.status < 500 && error.status !== 429;
}

/** RFC 3339 with microseconds, as `metav1.MicroTime`. */
function microTime(milliseconds: number): string {
  return new Date(milliseconds).toISOString().replace('Z', '000Z');
}

/** At most so many bytes of UTF-8, with `…` where something was cut off. */
function truncate(text: string, maxBytes: number): string {
  const bytes = Buffer.from(text);
  if (bytes.length <= maxBytes) return text;
  const head = bytes.subarray(0, maxBytes - Buffer.byteLength('…')).toString();
  return `${head.replace(/\uFFFD$/, '')}…`;
}
