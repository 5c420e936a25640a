import { timestamp } from '../../src/api/conditions.ts';
import { label } from '../../src/api/names.ts';

/** A Job that its controller leaves alone, so that a test says how it ends; no pod comes of it. */
export function runManifest({
  namespace,
  name,
  runsAs,
  spec = {},
}: {
  namespace: string;
  name: string;
  runsAs: string;
  spec?: object;
}): { apiVersion: string; kind: string; metadata: { name: string; namespace: string } } {
  const template = {
    metadata: { labels: { [label.identity]: runsAs } },
    spec: {
      serviceAccountName: runsAs,
      restartPolicy: 'Never',
      automountServiceAccountToken: false,
      containers: [{ name: 'main', image: 'registry.example/automation:1' }],
    },
  };
  const job = {
    apiVersion: 'batch/v1',
    kind: 'Job',
    metadata: { name, namespace },
    spec: { managedBy: 'example.com/test', ...spec, template },
  };
  return job;
}

/**
 * The status of a Job that ended, as its controller would write it.
 *
 * @param at milliseconds since the epoch
 */
export function endedStatus(how: 'Failed' | 'Complete', at: number): object {
  const time = timestamp(at);
  const condition = (type: string): object => ({ type, status: 'True', lastTransitionTime: time });
  const before = how === 'Failed' ? 'FailureTarget' : 'SuccessCriteriaMet';
  return {
    startTime: time,
    ...(how === 'Complete' && { completionTime: time }),
    conditions: [condition(before), condition(how)],
  };
}
