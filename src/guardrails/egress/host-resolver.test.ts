import { describe, expect, it } from 'vitest';
import { silentLogger } from '../../observability/logger.ts';
import { HostResolver } from './host-resolver.ts';

const minute = 60_000;

/** One that follows as many hosts as it can. */
class Full {
  now = Date.UTC(2030, 0, 1);
  readonly asked = new Set<string>();
  readonly resolver: HostResolver;
  readonly hosts: readonly string[];

  constructor() {
    this.resolver = new HostResolver({
      ask: async (host) => {
        this.asked.add(host);
        return [{ address: '203.0.113.1', ttl: 60 }];
      },
      isRefused: () => false,
      logger: silentLogger(),
      clock: () => this.now,
    });
    this.hosts = Array.from({ length: 10_000 }, (_, index) => `h${index}.example.com`);
    this.lookAt(this.hosts);
  }

  lookAt(hosts: readonly string[]): void {
    for (const host of hosts) this.resolver.look(host, undefined);
  }
}

const before = { addresses: ['203.0.113.9'], since: '2029-12-31T00:00:00Z' };

describe('a host that is one too many', () => {
  it('is not looked up, and it is said why', () => {
    const { resolver, asked } = new Full();
    const view = resolver.look('new.example.com', undefined);

    expect(view.problem).toContain('too many hosts');
    expect(view).toMatchObject({ resolved: undefined, isPending: false });
    expect(asked).not.toContain('new.example.com');
  });

  it('keeps the addresses that policies have', () => {
    const { resolver } = new Full();

    expect(resolver.look('new.example.com', before).resolved).toEqual(before);
  });

  it('takes nothing from those that are followed', () => {
    const { resolver, hosts } = new Full();
    resolver.look('new.example.com', undefined);

    expect(resolver.look(hosts[0] ?? '', undefined).problem).toBeUndefined();
  });

  it('is looked up once nobody has asked for another for a while', () => {
    const full = new Full();
    full.resolver.look('new.example.com', undefined);
    full.now += 16 * minute;
    full.lookAt(full.hosts.slice(1));
    const view = full.resolver.look('new.example.com', undefined);

    expect(view).toMatchObject({ problem: undefined, isPending: true });
    expect(full.resolver.look('newer.example.com', undefined).problem).toContain('too many hosts');
  });
});
