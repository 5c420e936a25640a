import { fingerprintOf } from './head.ts';
import type { Actor, EvidenceRecord } from './record.ts';
import { html, type Markup } from './markup.ts';
import { clockOf, dayOf, momentOf, page, section, table, terms, words } from './report-page.ts';
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
  /** Metrics of the period. */
  metrics?: readonly ReportSeries[];
}

/** One series of a metric; times are RFC 3339. */
export interface ReportSeries {
  labels: Readonly<Record<string, string>>;
  points: readonly { time: string; value: string }[];
}

/** One page of HTML that needs nothing else: no script, no font, no picture, no request. */
export function renderReport(input: ReportInput): string {
  const { namespace, workflow, since, exportedAt, records, notes, credentials } = input;
  const { metrics = [] } = input;
  const environment = records.findLast((record) => record.environment !== undefined)?.environment;
  return page(`Evidence of ${namespace}/${workflow}`, [
    html`<header>
      <h1>Evidence of ${namespace}/${workflow}</h1>
      <p class="soft">
        What was done by this automation and to it, from
        ${since === undefined ? 'the beginning' : momentOf(since)} to
        ${momentOf(exportedAt)}${environment === undefined ? '' : `, in ${environment}`}. All times
        are UTC.
      </p>
    </header>`,
    proofOf(input),
    section('Summary', [figuresOf(records)]),
    section(
      'Kills',
      killsOf(records),
      'Each stop of the automation, from the request to the end: what was taken away, and when that was proven.',
    ),
    section(
      'What was held or found',
      table(
        ['When', 'What', 'Why'],
        records
          .filter((record) => kindOf(record) === 'Finding' || isFailure(record))
          .map((record) => [momentOf(whenOf(record)), words(record.action), saidOf(record)]),
      ),
    ),
    section(
      'Who did what',
      table(['Who', 'How that is known', 'What'], byActor(records)),
      'Authenticated: the API server knew who it was. Asserted: what the client called itself. Operator: Automation Guardrails.',
    ),
    section(
      'What it was allowed to do',
      table(
        ['Since', 'What', 'Rules and destinations'],
        records
          .filter((record) => kindOf(record) === 'Rights')
          .map((record) => [momentOf(whenOf(record)), words(record.action), grantedBy(record)]),
      ),
      'Permissions and egress as they were in force, from each time on.',
    ),
    section(
      'Credentials at the time of export',
      table(
        ['Name', 'What is known'],
        credentials.map(({ name = '', ...rest }) => [
          name,
          Object.entries(rest).map(detailOf).join(', '),
        ]),
      ),
      'Names and times. A bundle holds no value.',
    ),
    section(
      'What its metrics said',
      table(['From', 'To', 'What', 'Least', 'Most'], metrics.flatMap(rangeOf)),
      'As a Prometheus had them when the bundle was exported; unlike the records, they prove nothing by themselves.',
    ),
    section(
      'Not in this bundle',
      table(
        ['What'],
        notes.map((note) => [note]),
      ),
      'What whoever exported it may not read, or what could not be reached.',
    ),
    section('Timeline', timelineOf(records)),
    html`<footer>
      Rendered from the records alone. kubectl guardrails evidence verify FILE renders it again and
      compares.
    </footer>`,
  ]);
}

function proofOf({ proof: { problems, keys, anchored } }: ReportInput): Markup {
  const isSound = problems.length === 0;
  const verdict = isSound
    ? 'The chain is unbroken: no record was changed, left out, added or moved.'
    : 'The chain is broken: do not rely on what follows.';
  const signers = keys.map(fingerprintOf).join(', ');
  const sentences = [
    ...problems.map(({ code, message }) => `${code}: ${message}`),
    `Signed with: ${signers || 'nothing'}. Compare with what the operator's administrators know.`,
    `${anchored} heads that were written down elsewhere agree with it.`,
    'Check it yourself, without a cluster: kubectl guardrails evidence verify FILE',
  ];
  return html`<section class="proof${isSound ? '' : ' bad'}" aria-label="Proof">
    <strong>${verdict}</strong>
    <ul>
      ${sentences.map((sentence) => html`<li>${sentence}</li>`)}
    </ul>
  </section>`;
}

/** A row of a series: over which time it went, and between which values. */
function rangeOf({ labels, points }: ReportSeries): string[][] {
  const [first, last] = [points[0], points.at(-1)];
  if (first === undefined || last === undefined) return [];
  const values = points.map(({ value }) => Number(value));
  const { __name__: name = '', ...rest } = labels;
  const { condition, reason } = rest;
  const what = [name, condition ?? '', reason ?? ''].filter((part) => part !== '').join(', ');
  const range = [Math.min(...values), Math.max(...values)].map((value) => String(value));
  return [[momentOf(first.time), momentOf(last.time), what, ...range]];
}

/** What a record is about, for people; a class of the page, too. */
type Kind = 'Kill' | 'Finding' | 'Decision' | 'Change' | 'Rights' | 'Run' | 'Credential' | 'Other';

const kinds: readonly (readonly [Kind, RegExp])[] = [
  ['Kill', /^(Kill|Release|GlassBroken|NotRestored|NotKept|JobsNotStarted)/],
  [
    'Finding',
    /Held$|^Excess|^Rotation(Overdue|CaughtUp)|^Limit|^Egress(Widened|AsListed)|^Review(Overdue|CaughtUp)|^Drift|^Policies/,
  ],
  [
    'Decision',
    /^(Approved|Rejected|AccessReviewed|DecisionGone|HoldAcknowledged|Gate(Lifted|TimedOut)|RunRejected)$/,
  ],
  ['Change', /^(Workflow|AutomationIdentity)(Created|Changed|Deleted)$/],
  ['Rights', /^(Permissions|Egress)/],
  ['Run', /^Runs?(Succeeded|Failed|TimedOut|Started)/],
  ['Credential', /^(Secret|Token|PreviousValue|(Emergency)?RotationRequested)/],
];

function kindOf({ action }: EvidenceRecord): Kind {
  return kinds.find(([, pattern]) => pattern.test(action))?.[0] ?? 'Other';
}

function isFailure({ action }: EvidenceRecord): boolean {
  return /^Run(Failed|TimedOut)$/.test(action);
}

function figuresOf(records: readonly EvidenceRecord[]): Markup {
  const succeeded = records
    .filter(({ action }) => /^Runs?Succeeded$/.test(action))
    .reduce((sum, { details }) => sum + Number(details?.['count'] ?? 1), 0);
  const of = (kind: Kind): EvidenceRecord[] => records.filter((record) => kindOf(record) === kind);
  const kills = new Set(
    records.flatMap(({ action, incident }) => (action === 'KillEngaged' ? (incident ?? []) : [])),
  );
  const figures: [string, number, boolean?][] = [
    ['runs that succeeded', succeeded],
    ['runs that failed', records.filter(isFailure).length, true],
    ['kills', kills.size, true],
    ['changes', of('Change').length],
    ['decisions', of('Decision').length],
    ['findings', of('Finding').length],
    ['records', records.length],
  ];
  return html`<ul class="figures">
    ${figures.map(
      ([what, count, isBad = false]) =>
        html`<li class="${isBad && count > 0 ? 'bad' : 'good'}"><b>${count}</b>${what}</li>`,
    )}
  </ul>`;
}

function killsOf(records: readonly EvidenceRecord[]): Markup[] {
  const own = records.filter((record) => kindOf(record) === 'Kill');
  return [...Map.groupBy(own, ({ incident }) => incident ?? '')].map(([incident, all]) => {
    const engaged = all.find(({ action }) => action === 'KillEngaged');
    const ended = all.findLast(({ action }) => /^Kill(Released|Gone)$/.test(action));
    const begun = engaged === undefined ? undefined : whenOf(engaged);
    const isOfOneDay = new Set(all.map((record) => dayOf(whenOf(record)))).size === 1;
    const steps = all.map((record) => {
      const at = whenOf(record);
      const after = begun === undefined ? '' : afterOf(begun, at);
      const who =
        record === engaged || record.actor.basis !== 'operator' ? byOf(record.actor) : html``;
      const said = record === engaged ? '' : saidOf(record);
      return html`<li class="Kill ${record.outcome}">
        <time>${isOfOneDay ? clockOf(at) : momentOf(at)}</time>
        <div>
          <p><b>${words(record.action)}</b> ${who} <span class="soft">${after}</span></p>
          ${paragraph(said)}
        </div>
      </li>`;
    });
    const span = `${begun === undefined ? 'from before' : momentOf(begun)} to ${ended === undefined ? 'the time of export: it stands' : momentOf(whenOf(ended))}`;
    return html`<div class="kill">
      <h3>${engaged?.message ?? 'Engaged before this period'}</h3>
      <p class="soft">${span}${incident === '' ? '' : `; incident ${incident}`}</p>
      <ol class="events">
        ${steps}
      </ol>
    </div>`;
  });
}

/** How much later, for people. */
function afterOf(begun: string, at: string): string {
  const seconds = Math.round((Date.parse(at) - Date.parse(begun)) / 1_000);
  if (Number.isNaN(seconds) || seconds <= 0) return '';
  if (seconds < 120) return `${seconds} s later`;
  const minutes = Math.round(seconds / 60);
  return minutes < 120 ? `${minutes} min later` : `${Math.round(minutes / 60)} h later`;
}

function byActor(records: readonly EvidenceRecord[]): (string | Markup)[][] {
  const groups = Map.groupBy(records, ({ actor }) => `${actor.name}\n${actor.basis}`);
  return [...groups].map(([, own]) => {
    const actions = Map.groupBy(own, ({ action }) => action);
    const what = [...actions].map(([action, { length }]) =>
      length === 1 ? words(action) : `${words(action)} (${length})`,
    );
    const [first] = own;
    return [
      first?.actor.name ?? '',
      first === undefined ? '' : badge(first.actor),
      what.join(', '),
    ];
  });
}

function badge({ basis }: Actor): Markup {
  return html`<span class="badge ${basis}">${basis}</span>`;
}

function byOf(actor: Actor): Markup {
  return html`by ${actor.name} ${badge(actor)}`;
}

function timelineOf(records: readonly EvidenceRecord[]): Markup[] {
  const days = Map.groupBy(records, (record) => dayOf(whenOf(record)));
  return [...days].map(
    ([day, own]) =>
      html`<h3>${day}</h3>
        <ol class="events">
          ${own.map(eventOf)}
        </ol>`,
  );
}

function eventOf(record: EvidenceRecord): Markup {
  const { action, outcome, actor } = record;
  const at = whenOf(record);
  return html`<li class="${kindOf(record)} ${outcome}">
    <time datetime="${at}">${clockOf(at)}</time>
    <div>
      <p><b>${words(action)}</b> ${byOf(actor)}</p>
      ${paragraph(saidOf(record))}
      <details>
        <summary>Record ${record.sequence} of ${record.chain}</summary>
        ${terms(fieldsOf(record))}
      </details>
    </div>
  </li>`;
}

function paragraph(text: string): Markup {
  return text === '' ? html`` : html`<p>${text}</p>`;
}

/** All of a record that isn't said above it. */
function fieldsOf({ objects = [], details = {}, ...record }: EvidenceRecord): [string, string][] {
  const { action, outcome, reason, time, happened, environment, identity, change, incident } =
    record;
  return [
    ['Action', `${action}, ${outcome.toLowerCase()}`],
    ['Reason', reason ?? ''],
    ['Happened', happened ?? ''],
    ['Recorded', time],
    ['Environment', environment ?? ''],
    ['Identity', identity ?? ''],
    ['Change', change ?? ''],
    ['Incident', incident ?? ''],
    ['State before', record.before ?? ''],
    ['State after', record.after ?? ''],
    ...Object.entries(details),
    ...objects.map(({ kind, name, uid, resourceVersion }): [string, string] => [
      kind,
      `${name}, UID ${uid ?? 'unknown'}, resource version ${resourceVersion ?? 'unknown'}`,
    ]),
  ];
}

function whenOf({ happened, time }: EvidenceRecord): string {
  return happened ?? time;
}

/** What it says by itself, or else what is known of it. */
function saidOf({ action, message, reason, details = {} }: EvidenceRecord): string {
  if (action === 'RunsStarted' || action === 'RunsSucceeded') {
    const { count = '', first = '', last = '' } = details;
    return `${count} between ${clockOf(first)} and ${clockOf(last)}`;
  }
  const said = message ?? (reason === undefined ? '' : words(reason));
  const known = Object.entries(details).filter(([field]) => !/^(digest|carried)$/.test(field));
  return [said, ...known.map(detailOf)].filter((text) => text !== '').join('; ');
}

function detailOf([field, text]: readonly [string, string]): string {
  // Rules and destinations are numbered, and say what they are by themselves.
  return /^(rule|to)\d+$/.test(field) ? text : `${words(field).toLowerCase()}: ${momentOf(text)}`;
}

/** The rules or destinations, one a line. */
function grantedBy({ details = {} }: EvidenceRecord): Markup {
  const lines = Object.entries(details).map(detailOf);
  if (lines.length === 0) return html`nothing`;
  return html`${lines.map((line) => html`<p>${line}</p>`)}`;
}
