import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { annotation, label } from '../../api/names.ts';
import { keptFor, keptOf, readKept, writeKept } from './kept.ts';

const killSwitch = (text: string | undefined) => ({
  metadata: {
    name: 'poster',
    annotations: text === undefined ? {} : { [annotation.restoreServiceAccount]: text },
  },
  spec: { workflow: 'poster', reason: 'x' },
});

describe('what others have on a ServiceAccount', () => {
  it('is everything but what is ours, and what belongs to this one object', () => {
    expect(
      keptOf({
        metadata: {
          name: 'poster',
          uid: 'u',
          resourceVersion: '7',
          finalizers: ['x/y'],
          labels: { [label.managedBy]: 'x', [label.identity]: 'poster', team: 'finance' },
          annotations: { [annotation.touch]: 'x', 'cloud.example/role': 'r' },
        },
        automountServiceAccountToken: true,
        imagePullSecrets: [{ name: 'registry' }, {}],
      }),
    ).toEqual({
      labels: { team: 'finance' },
      annotations: { 'cloud.example/role': 'r' },
      imagePullSecrets: [{ name: 'registry' }],
    });
    expect(keptOf({ metadata: { name: 'poster' } })).toEqual({});
  });

  it('survives its way into the annotation and back', () => {
    const texts = fc.dictionary(
      fc.string({ minLength: 1 }).filter((key) => key !== '__proto__'),
      fc.string(),
    );
    fc.assert(
      fc.property(
        fc.dictionary(fc.stringMatching(/^[a-z][-a-z0-9]{0,20}$/), fc.tuple(texts, texts)),
        (accounts) => {
          const kept = Object.fromEntries(
            Object.entries(accounts).map(([name, [labels, annotations]]) => [
              name,
              keptOf({ metadata: { name, labels, annotations } }),
            ]),
          );
          const { text, cut } = writeKept(kept);
          expect(cut).toEqual([]);
          expect(readKept(killSwitch(text))).toEqual(kept);
          expect(writeKept(readKept(killSwitch(text))).text).toBe(text);
        },
      ),
    );
  });

  it('is nothing where the annotation can’t be read, whatever it holds', () => {
    fc.assert(
      fc.property(fc.oneof(fc.string(), fc.json()), (text) => {
        expect(() => readKept(killSwitch(text))).not.toThrow();
      }),
    );
    expect(readKept(killSwitch('{"poster":7}'))).toEqual({});
    expect(readKept(killSwitch(undefined))).toEqual({});
  });

  it('never brings in marks of ours', () => {
    const text = JSON.stringify({
      poster: { labels: { [label.releasing]: 'true', [label.managedBy]: 'x' }, annotations: {} },
    });
    expect(readKept(killSwitch(text))).toEqual({ poster: {} });
  });

  it('is bounded: of what doesn’t fit, only that it stood is kept, and it is named', () => {
    const kept = {
      small: { annotations: { a: 'b' } },
      large: { annotations: { a: 'x'.repeat(70_000) } },
    };
    const { text = '', cut } = writeKept(kept);
    expect(text.length).toBeLessThan(1_000);
    expect(cut).toEqual(['large']);
    expect(readKept(killSwitch(text))).toEqual({ ...kept, large: {} });
  });

  it('is found in whichever KillSwitch has it', () => {
    const text = JSON.stringify({ poster: { labels: { a: 'b' } } });
    expect(keptFor('poster', [undefined, killSwitch('{}'), killSwitch(text)])).toEqual({
      labels: { a: 'b' },
    });
    expect(keptFor('other', [killSwitch(text)])).toBeUndefined();
  });
});
