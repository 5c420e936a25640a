import { describe, expect, it } from 'vitest';
import type { EndpointSlice, Service } from '../../api/objects.ts';
import { namedPeersOf, type LookedUp } from './named-peers.ts';

const unknown: LookedUp = { service: undefined, slices: [] };

function service(spec: Service['spec'] & {}, name = 'kube-dns'): Service {
  return { metadata: { name, namespace: 'kube-system' }, spec };
}

function slice(addresses: string[], fields: Partial<EndpointSlice> = {}): EndpointSlice {
  return {
    metadata: { name: 'slice' },
    endpoints: [{ addresses, conditions: { ready: true } }],
    ports: [{ name: 'https', port: 6443, protocol: 'TCP' }],
    ...fields,
  };
}

const dnsPorts = [
  { name: 'dns', port: 53, protocol: 'UDP' },
  { name: 'dns-tcp', port: 53, protocol: 'TCP' },
  { name: 'metrics', port: 9153, protocol: 'TCP' },
];
const both = [
  { protocol: 'UDP', port: 53 },
  { protocol: 'TCP', port: 53 },
];

describe('the API server', () => {
  const api = service({ clusterIPs: ['10.96.0.1'], ports: [{ port: 443 }] }, 'kubernetes');

  it('is its own addresses, in one order, and that of its Service', () => {
    const slices = [slice(['192.0.2.2', '192.0.2.1', '192.0.2.2'])];
    expect(namedPeersOf({ api: { service: api, slices }, dns: unknown })).toEqual({
      KubeAPI: [
        {
          to: [{ ipBlock: { cidr: '192.0.2.1/32' } }, { ipBlock: { cidr: '192.0.2.2/32' } }],
          ports: [{ protocol: 'TCP', port: 6443 }],
        },
        { to: [{ ipBlock: { cidr: '10.96.0.1/32' } }], ports: [{ protocol: 'TCP', port: 443 }] },
      ],
    });
  });

  it('is its IPv6 address', () => {
    const slices = [slice(['2001:db8::1'], { addressType: 'IPv6' })];
    const { KubeAPI } = namedPeersOf({ api: { service: undefined, slices }, dns: unknown });
    expect(KubeAPI?.[0]?.to).toEqual([{ ipBlock: { cidr: '2001:db8::1/128' } }]);
  });

  it.each<{ what: string; slices: EndpointSlice[] }>([
    { what: 'no slice', slices: [] },
    { what: 'a slice without endpoints', slices: [slice([])] },
    {
      what: 'endpoints that are not ready',
      slices: [
        slice([], { endpoints: [{ addresses: ['192.0.2.1'], conditions: { ready: false } }] }),
      ],
    },
    { what: 'no port', slices: [slice(['192.0.2.1'], { ports: [] })] },
    { what: 'a name in place of an address', slices: [slice(['api.example.com'])] },
    { what: 'the metadata service', slices: [slice(['169.254.169.254', 'fd00:ec2::254'])] },
    {
      what: 'hundreds of addresses',
      slices: [slice(Array.from({ length: 200 }, (_, index) => `192.0.2.${index}`))],
    },
  ])('is unknown, and never everything, with $what', ({ slices }) => {
    expect(namedPeersOf({ api: { service: api, slices }, dns: unknown })).toEqual({});
  });
});

describe("the cluster's DNS", () => {
  const labels = { 'k8s-app': 'kube-dns' };
  const found = (spec: Service['spec'] & {}, ...slices: EndpointSlice[]): unknown =>
    namedPeersOf({ api: unknown, dns: { service: service(spec), slices } }).DNS;
  const clusterIP = { to: [{ ipBlock: { cidr: '10.96.0.10/32' } }], ports: both };
  const common = { clusterIPs: ['10.96.0.10'], ports: dnsPorts };

  it('has the address of its Service, beside the pods that everybody reaches', () => {
    expect(found({ ...common, selector: labels })).toEqual([clusterIP]);
  });

  it('is not looked up anew when its pods move', () => {
    const spec = { ...common, selector: labels };
    const ports = dnsPorts;
    expect(found(spec, slice(['10.1.0.1'], { ports }))).toEqual(
      found(spec, slice(['10.1.0.2'], { ports })),
    );
  });

  it('is its pods by other labels, on the ports that they listen on, and not its metrics', () => {
    const ports = [
      { name: 'dns', port: 5353, protocol: 'UDP' },
      { name: 'metrics', port: 9153, protocol: 'TCP' },
    ];
    expect(found({ ...common, selector: { app: 'dns' } }, slice(['10.1.0.1'], { ports }))).toEqual([
      clusterIP,
      {
        to: [
          {
            namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': 'kube-system' } },
            podSelector: { matchLabels: { app: 'dns' } },
          },
        ],
        ports: [{ protocol: 'UDP', port: 5353 }],
      },
    ]);
  });

  it('is the addresses behind it where it has no pods', () => {
    expect(found(common, slice(['192.0.2.53'], { ports: dnsPorts }))).toEqual([
      clusterIP,
      {
        to: [{ ipBlock: { cidr: '192.0.2.53/32' } }],
        ports: [
          { protocol: 'TCP', port: 53 },
          { protocol: 'UDP', port: 53 },
        ],
      },
    ]);
  });

  it.each<{ what: string; spec: Service['spec'] & {} }>([
    { what: 'no port 53', spec: { ...common, ports: [{ port: 80 }] } },
    { what: 'a name elsewhere', spec: { ...common, type: 'ExternalName' } },
    { what: 'neither pods nor addresses', spec: common },
  ])('is unknown with $what', ({ spec }) => {
    expect(found(spec)).toBeUndefined();
  });

  it('has no address where its Service is headless', () => {
    expect(found({ ...common, clusterIPs: ['None'], selector: labels })).toEqual([]);
  });
});
