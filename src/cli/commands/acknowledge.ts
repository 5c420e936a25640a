import { acknowledgementPolicyName, holdAcknowledgementPolicyName } from '../../admission/index.ts';
import type { Hold } from '../../api/holds.ts';
import { annotation } from '../../api/names.ts';
import type { KubeObject } from '../../api/objects.ts';
import { resources, type Resource } from '../../api/resources.ts';
import { exit, follow, reasonOf, required, UsageError, type Command } from '../command.ts';
import { objectNameIn } from '../object-name.ts';
import { stamped } from '../stamped.ts';

const form = 'acknowledge awf/NAME --reason TEXT';

interface Held extends KubeObject {
  status?: { holds?: Hold[] };
}

/** Says that somebody knows of a hold, and what is done about it. */
export const acknowledgeCommand: Command = {
  name: 'acknowledge',
  usage: [
    [form, 'say that you know what holds Workflow NAME (aid/NAME: the identity); alerts are quiet'],
    ['acknowledge awf/NAME --hold REASON --reason TEXT', 'the same of one of several holds'],
  ],
  options: {
    reason: { type: 'string' },
    hold: { type: 'string' },
    wait: { type: 'boolean' },
    timeout: { type: 'string' },
  },
  readsNames: true,
  run: async (session) => {
    const { client, namespace, stdout, stderr } = session;
    const { resource, name } = targetOf(required(session.names[0], form));
    const reason = reasonOf(session, form);
    const key = { namespace, name };
    const object = await client.get<Held>(resource, key);
    if (object === undefined) {
      stderr(`Error: there is no ${resource.kind} ${name} in namespace ${namespace}.`);
      return exit.failed;
    }
    const hold = holdOf(object.status?.holds ?? [], session.option('hold'));
    if (typeof hold === 'string') {
      stderr(`Error: ${hold}`);
      return exit.failed;
    }
    // A breached limit has an acknowledgement of its own: that ends the hold.
    const isLimit = hold.reason === 'LimitBreached';
    const text = isLimit ? reason : `${hold.reason}: ${reason}`;
    const marks = isLimit
      ? { what: annotation.acknowledge, who: annotation.acknowledgedBy }
      : { what: annotation.acknowledgeHold, who: annotation.holdAcknowledgedBy };
    const policy = isLimit ? acknowledgementPolicyName : holdAcknowledgementPolicyName;
    await stamped(client, policy, (user) =>
      client.mergePatch(resource, key, {
        metadata: {
          annotations: { [marks.what]: text, ...(user !== undefined && { [marks.who]: user }) },
        },
      }),
    );
    if (!session.flag('wait', true)) return exit.ok;
    const done = await follow(session, async () => {
      const now = await client.get<Held>(resource, key);
      return now?.metadata.annotations?.[marks.what] === undefined;
    });
    if (!done) {
      stderr(
        'No operator has taken note of it yet. See whether one runs: kubectl guardrails doctor',
      );
      return exit.failed;
    }
    stdout(
      isLimit
        ? `Acknowledged: new runs of ${name} start.`
        : `Acknowledged ${hold.reason}, since ${hold.since}. It still holds: ${hold.message}`,
    );
    return exit.ok;
  },
};

/** @throws UsageError for a kind that isn't held */
function targetOf(text: string): { resource: Resource; name: string } {
  const { resource = resources.workflows, name } = objectNameIn(text);
  if (resource === resources.killSwitches) {
    throw new UsageError(`write awf/NAME or aid/NAME: kubectl guardrails ${form}`);
  }
  return { resource, name };
}

/** @returns a sentence where it isn't clear which one is meant */
function holdOf(holds: readonly Hold[], asked: string | undefined): Hold | string {
  const reasons = holds.map(({ reason }) => reason).join(', ');
  const [first, ...others] = holds;
  if (first === undefined) return 'nothing is held, so that there is nothing to acknowledge.';
  if (asked !== undefined) {
    return (
      holds.find(({ reason }) => reason === asked) ?? `no such hold stands; there is ${reasons}.`
    );
  }
  if (others.length > 0) return `several things hold it: say which one by --hold (${reasons}).`;
  return first.reason === 'LimitBreached'
    ? 'a breached limit holds it, and to acknowledge that lets new runs start: say so by --hold LimitBreached.'
    : first;
}
