import { annotation } from '../../api/names.ts';
import { conditionOf } from '../../api/conditions.ts';
import { resources } from '../../api/resources.ts';
import { exit, follow, required, type Command, type Session } from '../command.ts';

/** Rotates every generated credential of an automation, and revokes its published tokens. */
export const rotateCommand: Command = {
  name: 'rotate',
  usage: [
    ['rotate NAME', 'new values for all generated credentials; those before stay for the overlap'],
    ['rotate NAME --emergency', 'the same, and the values before are withdrawn at once'],
  ],
  options: {
    emergency: { type: 'boolean' },
    wait: { type: 'boolean' },
    timeout: { type: 'string' },
  },
  run: async (session) => rotate(session, required(session.names[0], 'rotate NAME')),
};

async function rotate(session: Session, name: string): Promise<number> {
  const { client, namespace, stdout, stderr } = session;
  const isEmergency = session.flag('emergency');
  const key = { namespace, name };
  if ((await client.get(resources.automationIdentities, key)) === undefined) {
    stderr(`Error: there is no AutomationIdentity ${name} in namespace ${namespace}.`);
    return exit.failed;
  }
  // Each text is carried out once.
  const nonce = new Date().toISOString();
  await client.mergePatch(resources.automationIdentities, key, {
    metadata: {
      annotations: { [isEmergency ? annotation.rotateEmergency : annotation.rotate]: nonce },
    },
  });
  stdout(`Rotation of ${namespace}/${name} asked for.`);
  if (!session.flag('wait', true)) return exit.ok;
  let message = 'No operator has worked on it yet.';
  const done = await follow(session, async () => {
    const identity = await client.get(resources.automationIdentities, key);
    const { conditions, lastHandledRotation, lastHandledEmergencyRotation } =
      identity?.status ?? {};
    message = conditionOf(conditions, 'Ready')?.message ?? message;
    return (isEmergency ? lastHandledEmergencyRotation : lastHandledRotation) === nonce;
  });
  if (!done) {
    stderr(`Not rotated in time: ${message}`);
    stderr(`See what it waits for: kubectl guardrails explain ${name} -n ${namespace}`);
    return exit.failed;
  }
  stdout(
    isEmergency
      ? 'Rotated. The values before are withdrawn. Tell the systems that they open.'
      : 'Rotated. The values before stay valid for the overlap.',
  );
  return exit.ok;
}
