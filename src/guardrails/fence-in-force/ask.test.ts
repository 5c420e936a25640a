import { describe, expect, it } from 'vitest';
import type { Denial, Mutation } from '../../admission/index.ts';
import type { KubeObject } from '../../api/objects.ts';
import { resources } from '../../api/resources.ts';
import type { KubeClient } from '../../runtime/client.ts';
import { ApiError, ApiTimeoutError } from '../../runtime/errors.ts';
import { askPolicy } from './ask.ts';

const pod: KubeObject = { metadata: { name: 'probe', namespace: 'automation-guardrails-probe' } };
const request = { verb: 'create', resource: resources.pods, object: pod } as const;
const denial: Denial = { kind: 'Denial', requests: [request], says: 'kill switch: ' };
const mutation: Mutation = {
  kind: 'Mutation',
  requests: [request],
  shows: ({ metadata }) => metadata.labels?.['changed'] === 'true',
  twin: 'twin',
};

interface Sent {
  verb: string;
  dryRun: boolean | undefined;
}

/** A client whose every answer is the next of these. */
function clientOf(answers: (KubeObject | Error)[]): { client: KubeClient; sent: Sent[] } {
  const sent: Sent[] = [];
  const next = (verb: string, dryRun: boolean | undefined): Promise<KubeObject> => {
    sent.push({ verb, dryRun });
    const answer = answers.shift() ?? pod;
    return answer instanceof Error ? Promise.reject(answer) : Promise.resolve(answer);
  };
  const client = {
    create: (_: unknown, __: unknown, { dryRun }: { dryRun?: boolean }) => next('create', dryRun),
    mergePatch: (_: unknown, __: unknown, ___: unknown, { dryRun }: { dryRun?: boolean }) =>
      next('patch', dryRun),
    delete: async (_: unknown, __: unknown, { dryRun }: { dryRun?: boolean }) => {
      await next('delete', dryRun);
      return true;
    },
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- all that is called
  } as unknown as KubeClient;
  return { client, sent };
}

const refusal = (message: string, status = 403, reason = 'Forbidden'): ApiError =>
  new ApiError(message, { status, reason });
const by = (policy: string, text: string): ApiError =>
  refusal(
    `pods "probe" is forbidden: ValidatingAdmissionPolicy '${policy}' with binding '${policy}' denied request: ${text}`,
  );

async function ask(probe: Denial | Mutation, ...answers: (KubeObject | Error)[]): Promise<string> {
  const { client } = clientOf(answers);
  return (await askPolicy(client, 'mine', probe, new AbortController().signal)).kind;
}

describe('a policy that refuses', () => {
  it.each([
    ['its own refusal', by('mine', 'kill switch: canary'), 'InForce'],
    ['nothing refused it', pod, 'NotInForce'],
    ['the quota, which comes after it', refusal('exceeded quota: probe, pods=0'), 'NotInForce'],
    ['an existing name', refusal('exists', 409, 'AlreadyExists'), 'NotInForce'],
    ['that it can not be evaluated', by('mine', 'failed to configure binding: x'), 'Unknown'],
    ['the refusal of another policy', by('other', 'kill switch: canary'), 'Unknown'],
    ['RBAC', refusal('User "x" cannot create resource "pods"'), 'Unknown'],
    ['a server that fails', refusal('internal', 500, 'InternalError'), 'Unknown'],
    ['silence', new ApiTimeoutError(10), 'Unknown'],
  ])('is judged by the answer: %s', async (_, answer, expected) => {
    expect(await ask(denial, answer)).toBe(expected);
  });

  it('has to refuse all of its requests', async () => {
    const twice = { ...denial, requests: [request, request] };
    const refused = by('mine', 'kill switch: canary');
    expect(await ask(twice, refused, refused)).toBe('InForce');
    expect(await ask(twice, refused, pod)).toBe('NotInForce');
  });
});

describe('a policy that changes', () => {
  it.each([
    ['changed', { metadata: { name: 'probe', labels: { changed: 'true' } } }, 'InForce'],
    ['as it was sent', pod, 'NotInForce'],
    ['refused by its twin, because it is unchanged', by('twin', 'unchanged'), 'NotInForce'],
    ['refused by another policy', by('other', 'no'), 'Unknown'],
  ])('is judged by the answer: %s', async (_, answer, expected) => {
    expect(await ask(mutation, answer)).toBe(expected);
  });
});

describe('the standing probe', () => {
  it('sends nothing but dry runs', async () => {
    const { client, sent } = clientOf([]);
    const { signal } = new AbortController();
    const name = 'canary';
    const requests = [
      request,
      { verb: 'patch', resource: resources.killSwitches, name, patch: {} },
      { verb: 'delete', resource: resources.killSwitches, name },
    ] as const;
    for (const one of requests) {
      await askPolicy(client, 'mine', { ...denial, requests: [one] }, signal);
    }
    expect(sent).toEqual([
      { verb: 'create', dryRun: true },
      { verb: 'patch', dryRun: true },
      { verb: 'delete', dryRun: true },
    ]);
  });
});
