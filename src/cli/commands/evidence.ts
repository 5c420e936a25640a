import { readFile, writeFile } from 'node:fs/promises';
import type { EvidenceSegment } from '../../api/evidence-segment.ts';
import { annotation, label } from '../../api/names.ts';
import type { KubeObject } from '../../api/objects.ts';
import { resources, type Resource } from '../../api/resources.ts';
import { isAnchor, readAnchors } from '../../evidence/anchors.ts';
import { bundleFiles, verifyBundle, type Case, type Series } from '../../evidence/bundle.ts';
import { fingerprintOf } from '../../evidence/head.ts';
import { publicKeys } from '../../evidence/signing-keys.ts';
import type { Anchor } from '../../evidence/verify.ts';
import { pack, unpack } from '../../evidence/tar.ts';
import { messageOf } from '../../runtime/errors.ts';
import { exit, required, UsageError, type Command, type Session } from '../command.ts';
import { queryRange } from '../prometheus.ts';
import { objectNameIn } from '../object-name.ts';
import { segmentsOf, sinceOf, sinceOption } from '../evidence-log.ts';

const exportForm = 'evidence export workflow/NAME -o case.tar.gz';
const verifyForm = 'evidence verify case.tar.gz';

/** A case as one file, and its proof. */
export const evidenceCommand: Command = {
  name: 'evidence',
  usage: [
    [`${exportForm} [--since 24h]`, 'everything of a case in one file, with a report'],
    [verifyForm, 'check it, without any cluster'],
  ],
  options: {
    ...sinceOption,
    output: { type: 'string', short: 'o' },
    'operator-namespace': { type: 'string' },
    'mark-exported': { type: 'boolean' },
    prometheus: { type: 'string' },
    'trusted-keys': { type: 'string' },
    anchors: { type: 'string' },
  },
  maxNames: 2,
  readsNames: true,
  outputIsFile: true,
  isOffline: ([verb]) => verb === 'verify',
  run: async (session) => {
    const [verb] = session.names;
    if (verb === 'export') return await exportCase(session);
    if (verb === 'verify') return await verifyCase(session);
    throw new UsageError(`write kubectl guardrails ${exportForm}, or ${verifyForm}`);
  },
};

async function exportCase(session: Session): Promise<number> {
  const { client, namespace, stdout } = session;
  const { name } = objectNameIn(required(session.names[1], exportForm));
  const file = session.option('output');
  if (file === undefined)
    throw new UsageError(`a file is missing: kubectl guardrails ${exportForm}`);
  const since = sinceOf(session);
  const found = await segmentsOf(session, name);
  if (!found.has(name)) throw new Error(`There is no evidence of ${namespace}/${name}.`);
  const chains = new Map([...found].map(([chain, all]) => [chain, fromTime(all, since)] as const));
  const notes: string[] = [];
  const operatorNamespace = session.option('operator-namespace') ?? 'automation-guardrails';
  const keys = [...chains.keys()].map((chain) => `${namespace}/${chain}`);
  const exportedAt = new Date().toISOString();
  const evidence: Case = {
    namespace,
    workflow: name,
    since,
    exportedAt,
    chains: new Map([...chains].map(([chain, all]) => [chain, all.map(({ spec }) => spec)])),
    anchors: await noting(notes, 'anchors', [], () => readAnchors(client, operatorNamespace, keys)),
    keys: await noting(notes, 'public keys', [], () => publicKeys(client, operatorNamespace)),
    ...(await standing(session, name, notes)),
    metrics: await metricsOf(session, name, { since, exportedAt }, notes),
    notes,
  };
  const files = bundleFiles(evidence);
  await writeFile(file, pack(files), { mode: 0o600 });
  const proof = verifyBundle(files);
  stdout(`Wrote ${file}: ${proof.records.length} records, manifest ${proof.digest}.`);
  for (const note of notes.filter((one) => one !== noPrometheus))
    session.stderr(`Not in it: ${note}`);
  if (session.flag('mark-exported')) await markExported(session, [...found.values()].flat());
  return report(session, proof.problems);
}

const noPrometheus = 'metrics: none were asked for (--prometheus)';

/** Metrics of the last month at most, where a Prometheus was named. */
async function metricsOf(
  session: Session,
  name: string,
  { since, exportedAt }: { since: string | undefined; exportedAt: string },
  notes: string[],
): Promise<Series[]> {
  const url = session.option('prometheus');
  if (url === undefined) {
    notes.push(noPrometheus);
    return [];
  }
  const earliest = new Date(Date.parse(exportedAt) - 31 * 86_400_000).toISOString();
  const from = since === undefined || since < earliest ? earliest : since;
  const metric = 'automation_guardrails_attention_seconds';
  const labels = { automation: `${session.namespace}/${name}` };
  return await noting(notes, 'metrics', [], () =>
    queryRange({ url, metric, labels, from, to: exportedAt }),
  );
}

/** The segment in which the time lies, and all after it. */
function fromTime(
  segments: readonly EvidenceSegment[],
  since: string | undefined,
): EvidenceSegment[] {
  const ordered = segments.toSorted((a, b) => a.spec.index - b.spec.index);
  if (since === undefined) return ordered;
  const first = ordered.findIndex(({ spec }) => Date.parse(spec.head.time) >= Date.parse(since));
  // One before it, so that the first record is older than what is asked for.
  return ordered.slice(first < 0 ? -1 : Math.max(0, first - 1));
}

async function markExported(session: Session, segments: readonly EvidenceSegment[]): Promise<void> {
  for (const { metadata, spec } of segments) {
    const { namespace = '', name, uid, resourceVersion, annotations = {} } = metadata;
    if (!spec.sealed || annotations[annotation.exported] === spec.head.hash) continue;
    await session.client.mergePatch(
      resources.evidenceSegments,
      { namespace, name },
      {
        metadata: { uid, resourceVersion, annotations: { [annotation.exported]: spec.head.hash } },
      },
    );
    session.stdout(`Marked ${name} as exported.`);
  }
}

/** What stands now: the automation, its rights, its egress, and of its credentials the times. */
async function standing(
  { client, namespace }: Session,
  name: string,
  notes: string[],
): Promise<Pick<Case, 'objects' | 'credentials'>> {
  const one = async (of: Resource): Promise<object[]> =>
    noting(notes, `${of.kind} ${name}`, [], async () => {
      const object = await client.get(of, { namespace, name });
      return object === undefined ? [] : [plain(of, object)];
    });
  const identity = await noting(notes, `AutomationIdentity ${name}`, undefined, () =>
    client.get(resources.automationIdentities, { namespace, name }),
  );
  const policies = await noting(notes, 'NetworkPolicies', [], () =>
    client.list(resources.networkPolicies, {
      namespace,
      labelSelector: `${label.workflow}=${name}`,
    }),
  );
  const ofWorkflow = async <T extends KubeObject & { spec: { workflow: string } }>(
    of: Resource<T>,
  ): Promise<object[]> =>
    noting(notes, of.plural, [], async () => {
      const all = await client.list(of, { namespace });
      return all.filter(({ spec }) => spec.workflow === name).map((object) => plain(of, object));
    });
  const { secrets = [], tokens = [] } = identity?.status ?? {};
  const entries = [...secrets, ...tokens].map((entry) =>
    Object.fromEntries(
      Object.entries(entry).map(([field, value]): [string, string] => [field, value]),
    ),
  );
  return {
    objects: [
      ...(await one(resources.workflows)),
      ...(identity === undefined ? [] : [plain(resources.automationIdentities, identity)]),
      ...(await ofWorkflow(resources.workflowRevisions)),
      ...(await ofWorkflow(resources.approvals)),
      ...(await one(resources.killSwitches)),
      ...(await one(resources.roles)),
      ...(await one(resources.roleBindings)),
      ...policies.map((policy) => plain(resources.networkPolicies, policy)),
    ],
    credentials: entries,
  };
}

function plain(of: Resource, object: KubeObject): object {
  const { managedFields: __, annotations, ...metadata } = object.metadata;
  // What kubectl applied last is there once more, as one long text.
  const { 'kubectl.kubernetes.io/last-applied-configuration': _, ...rest } = annotations ?? {};
  return { ...object, kind: of.kind, metadata: { ...metadata, annotations: rest } };
}

/** What may not be read is noted, and left out. */
async function noting<T>(
  notes: string[],
  what: string,
  otherwise: T,
  read: () => Promise<T>,
): Promise<T> {
  try {
    return await read();
  } catch (error) {
    notes.push(`${what}: ${messageOf(error)}`);
    return otherwise;
  }
}

async function verifyCase(session: Session): Promise<number> {
  const { stdout } = session;
  const file = required(session.names[1], verifyForm);
  const lines = session.option('anchors');
  const anchors = lines === undefined ? [] : anchorsIn(await readFile(lines, 'utf8'));
  const proof = verifyBundle(unpack(await readFile(file)), {
    trustedKeys: session.option('trusted-keys')?.split(','),
    anchors,
  });
  stdout(`Evidence of ${proof.namespace}/${proof.workflow}: ${proof.records.length} records.`);
  stdout(`Manifest ${proof.digest}`);
  stdout(`Signed with ${proof.keys.map((key) => `${key} (${fingerprintOf(key)})`).join(', ')}`);
  stdout(`${proof.anchored} heads that stand elsewhere agree.`);
  for (const remark of proof.remarks) session.stderr(remark);
  return report(session, proof.problems);
}

/** Those lines of a log that say a head; others are passed over. */
function anchorsIn(log: string): Anchor[] {
  return log.split('\n').flatMap((line) => {
    try {
      const value: unknown = JSON.parse(line);
      return isAnchor(value) ? [value] : [];
    } catch {
      return [];
    }
  });
}

function report(
  { stdout, stderr }: Session,
  problems: readonly { code: string; message: string }[],
): number {
  for (const { code, message } of problems) stderr(`${code}: ${message}`);
  stdout(problems.length === 0 ? 'Unbroken.' : `Broken: ${problems.length} findings.`);
  return problems.length === 0 ? exit.ok : exit.failed;
}
