import { isIP } from 'node:net';
import { label } from '../../api/names.ts';
import type { Namespace } from '../../api/objects.ts';
import {
  metadataAddresses,
  shortestPrefix,
  type EgressEntry,
  type IngressEntry,
} from '../../api/workflow.ts';
import { isBlank, type Problem } from '../requirements.ts';
import { some } from '../wording.ts';
import { contains } from './addresses.ts';
import type { Entry } from './rules.ts';

/** The allowlist of a Workflow, and what decides which of it is in force. */
export interface AllowlistRequest {
  egress: readonly EgressEntry[];
  ingress: readonly IngressEntry[];
  /** The Workflow's own namespace. */
  namespace: Namespace | undefined;
  /** Any namespace by its name; `undefined` where there is none. */
  namespaceOf: (name: string) => Namespace | undefined;
  /** Milliseconds since the epoch. */
  now: number;
}

export interface Allowlist {
  /** What is in force. */
  egress: readonly EgressEntry[];
  ingress: readonly IngressEntry[];
  /** Ended, in words. */
  expired: readonly string[];
  /** Milliseconds until the next entry ends. */
  nextExpiryMs: number | undefined;
  /** What is refused: the Workflow is held for it. */
  problems: readonly Problem[];
}

/**
 * What of the allowlist is in force now. An entry that has ended, and one that leads into another
 * environment, are left out. A network that the schema refuses by now may have been stored before
 * it did: it holds, and what stands stays.
 */
export function allowlistOf(request: AllowlistRequest): Allowlist {
  const { egress, ingress, now } = request;
  const all: readonly Entry[] = [...egress, ...ingress];
  const isOver = ({ expires }: Entry): boolean => expires !== undefined && endOf(expires) <= now;
  const isForeign = (entry: Entry): boolean => isOfOtherEnvironment(entry, request);
  const isInForce = (entry: Entry): boolean => !isOver(entry) && !isForeign(entry);
  const ends = all.flatMap(({ expires }) => {
    const end = expires === undefined ? undefined : endOf(expires);
    return end === undefined || end <= now ? [] : [end - now];
  });
  const foreign = all.filter((entry) => !isOver(entry) && isForeign(entry));
  const wide = egress.filter((entry) => !isOver(entry) && isTooWide(entry));
  return {
    egress: egress.filter(isInForce),
    ingress: ingress.filter(isInForce),
    expired: all.filter(isOver).map((entry) => `${wordOf(entry)} (${entry.expires ?? ''})`),
    nextExpiryMs: ends.length === 0 ? undefined : Math.min(...ends),
    problems: [
      ...(wide.length === 0
        ? []
        : [
            {
              reason: 'DestinationRefused',
              message: `Too wide, or with the metadata address of a cloud inside: ${some(wide.map(wordOf))}. List the networks that the automation needs, and take the metadata address out by except.`,
            },
          ]),
      ...(foreign.length === 0
        ? []
        : [
            {
              reason: 'OtherEnvironment',
              message: `In a namespace of another environment than ${environmentOf(request.namespace) ?? ''}, and not allowed: ${some(foreign.map(wordOf))}. Take the entry out, or name a peer of the same environment.`,
            },
          ]),
    ],
  };
}

/** An entry in a few words: whom it names. */
export function wordOf(entry: Entry): string {
  const { peer, cidr, except, namespace, podSelector } = entry;
  if ('host' in entry && entry.host !== undefined) return entry.host;
  if (peer !== undefined) return peer;
  if (cidr !== undefined) {
    return except === undefined ? cidr : `${cidr} except ${some(except, 3)}`;
  }
  const labels = Object.entries(podSelector?.matchLabels ?? {}).map(
    ([key, value]) => `${key}=${value}`,
  );
  return `namespace ${namespace ?? ''}${labels.length === 0 ? '' : ` (${some(labels, 3)})`}`;
}

/** One that can't be read has ended: it must not hold for ever. */
function endOf(expires: string): number {
  const end = Date.parse(expires);
  return Number.isNaN(end) ? 0 : end;
}

function environmentOf(namespace: Namespace | undefined): string | undefined {
  const environment = namespace?.metadata.labels?.[label.environment];
  return isBlank(environment) ? undefined : environment;
}

/**
 * A namespace that nobody guards, or that isn't there, is of no environment. Where that is the
 * Workflow's own, it is held for that, and keeps what it has.
 */
function isOfOtherEnvironment(
  { namespace: name }: Entry,
  { namespace, namespaceOf }: AllowlistRequest,
): boolean {
  if (name === undefined) return false;
  const own = environmentOf(namespace);
  const theirs = environmentOf(namespaceOf(name));
  return own !== undefined && theirs !== undefined && theirs !== own;
}

function isTooWide({ cidr, except = [] }: EgressEntry): boolean {
  if (cidr === undefined) return false;
  const [address = '', length = ''] = cidr.split('/');
  const family = isIP(address) === 4 ? 'ipv4' : 'ipv6';
  if (Number(length) < shortestPrefix[family]) return true;
  return metadataAddresses.some(
    (metadata) =>
      contains(cidr, metadata) && !except.some((network) => contains(network, metadata)),
  );
}
