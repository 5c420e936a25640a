import { fingerprintOf } from './head.ts';
import type { EvidenceRecord } from './record.ts';
import type { ProofProblem } from './verify.ts';

/** What a report tells. */
export interface ReportInput {
  namespace: string;
  workflow: string;
  /** RFC 3339; absent: from the beginning. */
  since?: string | undefined;
  /** RFC 3339. */
  exportedAt: string;
  /** In the order of their time. */
  records: readonly EvidenceRecord[];
  proof: {
    problems: readonly ProofProblem[];
    keys: readonly string[];
    /** Heads that stand elsewhere and agree. */
    anchored: number;
  };
  /** What couldn't be read for the bundle. */
  notes: readonly string[];
  /** Names and times of credentials; no values. */
  credentials: readonly Readonly<Record<string, string>>[];
}

const style = `
:root{color-scheme:light dark;--line:#8886;--soft:#8881}
body{font:16px/1.5 system-ui,sans-serif;margin:0 auto;max-width:72rem;padding:1rem}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.25rem 1rem}dt{font-weight:600}dd{margin:0;overflow-wrap:anywhere}
.proof{border:1px solid var(--line);border-left:.5rem solid #2a7;padding:.5rem 1rem}.proof.bad{border-left-color:#c33}
table{border-collapse:collapse;width:100%}th,td{border-bottom:1px solid var(--line);padding:.35rem .5rem;text-align:left;vertical-align:top;overflow-wrap:anywhere}
tr.Failed td:first-child{border-left:.25rem solid #c33}
@media(max-width:45rem){dl{grid-template-columns:1fr}thead{display:none}tr{display:block;border:1px solid var(--line);margin:.5rem 0;background:var(--soft)}td{display:block;border:0}td::before{content:attr(data-of)": ";font-weight:600}}
`.replaceAll('\n', '');

/** One page of HTML that needs nothing else: no script, no font, no picture, no request. */
export function renderReport(input: ReportInput): string {
  const { namespace, workflow, since, exportedAt, records, notes, credentials } = input;
  const title = `Evidence of ${namespace}/${workflow}`;
  return [
    '<!doctype html>',
    '<html lang="en">',
    '<head>',
    '<meta charset="utf-8">',
    '<meta name="viewport" content="width=device-width, initial-scale=1">',
    `<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">`,
    `<title>${escaped(title)}</title>`,
    `<style>${style}</style>`,
    '</head>',
    '<body>',
    `<h1>${escaped(title)}</h1>`,
    proofSection(input),
    '<h2>Summary</h2>',
    list([
      ['From', since ?? 'the beginning'],
      ['To', exportedAt],
      ['Records', String(records.length)],
      ...counted(records),
      ...notes.map((note): [string, string] => ['Not in this bundle', note]),
    ]),
    ...section(
      'Kills',
      ['When', 'What', 'By', 'Said'],
      records.filter(isOfKill).map((record) => ({
        cells: [whenOf(record), record.action, actorOf(record), record.message ?? ''],
        kind: record.outcome,
      })),
    ),
    ...section(
      'What was held or found',
      ['When', 'What', 'Why'],
      records.filter(isFinding).map((record) => ({
        cells: [whenOf(record), record.action, record.message ?? ''],
        kind: record.outcome,
      })),
    ),
    ...section('Who did what', ['Who', 'Known how', 'What'], byActor(records)),
    ...section(
      'Credentials at the time of export',
      ['Name', 'What is known'],
      credentials.map(({ name = '', ...rest }) => ({
        cells: [
          name,
          Object.entries(rest)
            .map(([field, text]) => `${field} ${text}`)
            .join(', '),
        ],
        kind: '',
      })),
    ),
    ...section(
      'Timeline',
      ['When', 'What', 'By', 'Details', 'Record'],
      records.map((record) => ({
        cells: [
          whenOf(record),
          record.action,
          actorOf(record),
          detailsOf(record),
          `${record.chain} ${record.sequence}`,
        ],
        kind: record.outcome,
      })),
    ),
    '</body>',
    '</html>',
    '',
  ].join('\n');
}

function proofSection({ proof: { problems, keys, anchored } }: ReportInput): string {
  const isSound = problems.length === 0;
  const heading = isSound
    ? 'The chain is unbroken: no record was changed, left out, added or moved.'
    : 'The chain is broken: do not rely on what follows.';
  const signers = keys.map(fingerprintOf).join(', ');
  const sentences = [
    ...problems.map(({ code, message }) => `${code}: ${message}`),
    `Signed with: ${signers || 'nothing'}. Compare with what the operator's administrators know.`,
    `${anchored} heads that were written down elsewhere agree with it.`,
    'Check it yourself: kubectl guardrails evidence verify FILE',
  ];
  return `<section class="proof${isSound ? '' : ' bad'}"><strong>${heading}</strong><ul>${sentences.map((text) => `<li>${escaped(text)}</li>`).join('')}</ul></section>`;
}

function isOfKill({ action }: EvidenceRecord): boolean {
  return /^(Kill|Release|GlassBroken|NotRestored|JobsNotStarted)/.test(action);
}

function isFinding({ action }: EvidenceRecord): boolean {
  return /Held$|^ExcessPermissions|^Rotation(Overdue|CaughtUp)|^Run(Failed|TimedOut)|^Policies/.test(
    action,
  );
}

function counted(records: readonly EvidenceRecord[]): [string, string][] {
  const succeeded = records
    .filter(({ action }) => action === 'RunsSucceeded')
    .reduce((sum, { details }) => sum + Number(details?.['count'] ?? 0), 0);
  const failed = records.filter(({ action }) => /^Run(Failed|TimedOut)$/.test(action)).length;
  const kills = new Set(
    records.flatMap(({ action, incident }) => (action === 'KillEngaged' ? (incident ?? []) : [])),
  );
  const changes = records.filter(({ action }) =>
    /^(Workflow|AutomationIdentity)(Created|Changed)$/.test(action),
  );
  return [
    ['Runs that succeeded', String(succeeded)],
    ['Runs that failed', String(failed)],
    ['Kills', String(kills.size)],
    ['Changes', String(changes.length)],
  ];
}

function byActor(records: readonly EvidenceRecord[]): Row[] {
  const groups = Map.groupBy(records, ({ actor }) => `${actor.name}\n${actor.basis}`);
  return [...groups].map(([key, own]) => {
    const [name = '', basis = ''] = key.split('\n');
    const actions = Map.groupBy(own, ({ action }) => action);
    const what = [...actions].map(([action, { length }]) =>
      length === 1 ? action : `${action} (${length})`,
    );
    return { cells: [name, basis, what.join(', ')], kind: '' };
  });
}

function whenOf({ happened, time }: EvidenceRecord): string {
  return happened ?? time;
}

function actorOf({ actor: { name, basis } }: EvidenceRecord): string {
  return `${name} (${basis})`;
}

function detailsOf({ reason, message, details = {}, incident, change }: EvidenceRecord): string {
  return [
    ...[message ?? reason ?? ''].filter((text) => text !== ''),
    ...Object.entries(details).map(([field, text]) => `${field}: ${text}`),
    ...(change === undefined ? [] : [`change: ${change}`]),
    ...(incident === undefined ? [] : [`incident: ${incident}`]),
  ].join('; ');
}

interface Row {
  cells: readonly string[];
  /** Becomes the class of the row. */
  kind: string;
}

function section(title: string, head: readonly string[], rows: readonly Row[]): string[] {
  if (rows.length === 0) return [];
  const body = rows.map(({ cells, kind }) => {
    const row = cells.map(
      (cell, index) => `<td data-of="${escaped(head[index] ?? '')}">${escaped(cell)}</td>`,
    );
    return `<tr class="${escaped(kind)}">${row.join('')}</tr>`;
  });
  return [
    `<h2>${escaped(title)}</h2>`,
    `<table><thead><tr>${head.map((cell) => `<th>${escaped(cell)}</th>`).join('')}</tr></thead><tbody>`,
    ...body,
    '</tbody></table>',
  ];
}

function list(rows: readonly (readonly [string, string])[]): string {
  return `<dl>${rows.map(([term, text]) => `<dt>${escaped(term)}</dt><dd>${escaped(text)}</dd>`).join('')}</dl>`;
}

function escaped(text: string): string {
  return text
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll('"', '&quot;');
}
