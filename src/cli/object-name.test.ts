import { expect, it } from 'vitest';
import { resources } from '../api/resources.ts';
import { objectNameIn } from './object-name.ts';

const { workflows, automationIdentities, killSwitches } = resources;

it.each([
  ['invoice', undefined],
  ['awf/invoice', workflows],
  ['workflow/invoice', workflows],
  ['automationworkflows/invoice', workflows],
  ['automationworkflow.automationguardrails.dev/invoice', workflows],
  ['AID/invoice', automationIdentities],
  ['automationidentities/invoice', automationIdentities],
  ['ksw/invoice', killSwitches],
])('%s names the automation invoice', (argument, resource) => {
  expect(objectNameIn(argument)).toEqual({ resource, name: 'invoice' });
});

it.each(['deployment/invoice', 'finance/invoice', 'awf/', 'awf/finance/invoice', '/invoice'])(
  '%s names none, and the message says how one is named',
  (argument) => {
    expect(() => objectNameIn(argument)).toThrow(
      expect.objectContaining({ code: 'USAGE', message: expect.stringContaining('awf/NAME') }),
    );
  },
);
