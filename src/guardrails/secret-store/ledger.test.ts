import { beforeEach, describe, expect, it } from 'vitest';
import { label } from '../../api/names.ts';
import { resources } from '../../api/resources.ts';
import { silentLogger } from '../../observability/logger.ts';
import { ApiError } from '../../runtime/errors.ts';
import { MemoryClient } from '../identity/memory-client.testing.ts';
import { CopyLedger, readLedger, type LedgerEntry } from './ledger.ts';

const namespace = 'automation-guardrails';
const of = (name: string, uid = 'uid-1', place = `vault secret/${name}`): LedgerEntry => ({
  key: { namespace: 'finance', identity: 'poster', uid, name },
  place,
});
const lost = new ApiError('the answer is lost', { status: 504 });

let client: MemoryClient;
let ledger: CopyLedger;

beforeEach(() => {
  client = new MemoryClient(() => 0);
  ledger = another();
});

/** That of another process, or of the next term. */
function another(): CopyLedger {
  return new CopyLedger({ client, namespace, logger: silentLogger() });
}

/** Names in what a process that knows nothing reads. */
async function written(): Promise<string[]> {
  const entries = await another().reread('finance/poster');
  return entries.map(({ key, place }) => `${key.uid} ${key.name} ${place}`).toSorted();
}

describe('the ledger of copies', () => {
  it('holds an entry from its record to its end, and writes nothing twice', async () => {
    await ledger.record(of('erp'));
    await ledger.record(of('erp'));
    expect(await written()).toEqual(['uid-1 erp vault secret/erp']);
    expect(client.writes.map(({ verb }) => verb)).toEqual(['create']);
    const [found] = client.all(resources.configMaps);
    expect(found?.metadata).toMatchObject({ namespace, labels: { [label.copies]: 'recorded' } });
    await ledger.strike(of('erp'));
    await ledger.strike(of('erp'));
    await ledger.strike(of('never'));
    expect(await written()).toEqual([]);
    expect(client.writes).toHaveLength(2);
  });

  it('keeps apart what is of another UID, and what is in another place', async () => {
    const all = [of('erp'), of('erp', 'uid-2'), of('erp', 'uid-1', 'vault other/erp')];
    for (const entry of all) await ledger.record(entry);
    expect(ledger.entriesOf('finance/poster')).toEqual(all);
    await ledger.strike(of('erp'));
    expect(ledger.entriesOf('finance/poster')).toEqual(all.slice(1));
    expect(ledger.entriesOf('finance/payer')).toEqual([]);
  });

  it('writes what comes together together', async () => {
    const entries = Array.from({ length: 100 }, (_, n) => of(`c${n}`));
    await Promise.all(entries.map((entry) => ledger.record(entry)));
    expect(await written()).toHaveLength(100);
    expect(client.writes.length).toBeLessThanOrEqual(2);
  });

  it('does not believe a write whose answer was lost, whether it was done or not', async () => {
    for (const when of ['beforeWrite', 'afterWrite'] as const) {
      for (const action of ['record', 'strike'] as const) {
        client = new MemoryClient(() => 0);
        ledger = another();
        await ledger.record(of('other'));
        if (action === 'strike') await ledger.record(of('erp'));
        client[when] = () => {
          throw lost;
        };
        await expect(ledger[action](of('erp')), `${when} ${action}`).rejects.toBe(lost);
        client[when] = () => undefined;
        // The opposite, too, is written in fact.
        await ledger.record(of('erp'));
        expect(await written(), `${when} ${action}`).toContain('uid-1 erp vault secret/erp');
        await ledger.strike(of('erp'));
        expect(await written()).toEqual(['uid-1 other vault secret/other']);
      }
    }
  });

  it('loses nothing where somebody else writes at the same time', async () => {
    await ledger.record(of('one'));
    await another().record(of('two'));
    await ledger.record(of('three'));
    expect(await written()).toHaveLength(3);
    await another().strike(of('two'));
    await ledger.strike(of('one'));
    expect(await written()).toEqual(['uid-1 three vault secret/three']);
  });

  it('says no where it cannot be written down, and goes on when it can', async () => {
    client.beforeWrite = () => {
      throw new ApiError('too long', { status: 422 });
    };
    await expect(ledger.record(of('erp'))).rejects.toMatchObject({ status: 422 });
    client.beforeWrite = () => undefined;
    await ledger.record(of('erp'));
    expect(await written()).toHaveLength(1);
  });

  it('leaves alone what is no entry of it', async () => {
    await ledger.record(of('erp'));
    const [found] = client.all(resources.configMaps);
    if (found === undefined) throw new Error('nothing is written down');
    const texts = { a: 'no JSON', b: '1', c: '{"namespace":"finance"}', d: 'null' };
    client.put(resources.configMaps, { ...found, data: { ...found.data, ...texts } });
    const next = another();
    expect(await next.reread('finance/poster')).toEqual([of('erp')]);
    await next.record(of('bank'));
    expect(client.all(resources.configMaps)[0]?.data).toMatchObject(texts);
  });

  it('is read by any replica as it stands, of the identities that are asked for alone', async () => {
    const read = (...names: string[]): Promise<LedgerEntry[]> =>
      readLedger(new Set(names), { client, namespace }, new AbortController().signal);
    expect(await read('finance/poster')).toEqual([]);
    const others = Array.from({ length: 200 }, (_, n): LedgerEntry => {
      const { key, place } = of('erp');
      return { key: { ...key, identity: `other-${n}` }, place };
    });
    for (const entry of [of('erp'), ...others]) await ledger.record(entry);
    expect(await read('finance/poster')).toEqual([of('erp')]);
    expect(await read('finance/poster', 'finance/other-1')).toHaveLength(2);
    await another().strike(of('erp'));
    expect(await read('finance/poster')).toEqual([]);
  });

  it('is read anew in each term, and known in none but that', async () => {
    await another().record(of('erp'));
    for (const names of [['erp'], ['bank', 'erp']]) {
      const term = new AbortController();
      const read = Promise.withResolvers<void>();
      const run = ledger.run(term.signal, read.resolve);
      await read.promise;
      expect([...ledger.list()].map(({ key }) => key.name).toSorted()).toEqual(names);
      term.abort();
      await run;
      expect([...ledger.list()]).toEqual([]);
      await another().record(of('bank'));
    }
  });
});
