/** What the commands of the documentation need around them, to be run as they stand on their page. */

/** A command of a page. Other commands here are lines for a shell, run as an administrator. */
export interface Step {
  /** Run before it. */
  readonly before?: readonly string[];
  /** Run after it. */
  readonly after?: readonly string[];
  /** What stands for its placeholders, in place of {@link placeholders}. */
  readonly with?: Readonly<Record<string, string>>;
  /** Environment variables that the page speaks of: a line for each, that prints the value. */
  readonly env?: Readonly<Record<string, string>>;
  /** Added at its end: who does it (`--as=USER`), or that it is only tried (`--dry-run=server`). */
  readonly add?: string;
  /** What the page says of its end, where that isn't 0. */
  readonly exit?: number;
  /** Part of what it prints. */
  readonly says?: string;
}

/** What the commands of a page need. */
export interface Page {
  readonly before?: readonly string[];
  /** By the command as the page has it. */
  readonly steps?: Readonly<Record<string, Step>>;
  readonly after?: readonly string[];
}

/** What placeholders of the documentation stand for, unless a step says otherwise. */
export const placeholders: Readonly<Record<string, string>> = {
  NAME: 'invoice-posting',
  NAMESPACE: 'finance',
  POLICY: 'allow-internal',
  BINDING: 'everybody-reads',
  WORKLOAD: 'invoice-poster',
};

const helmInstall =
  'helm install automation-guardrails charts/automation-guardrails --namespace automation-guardrails --create-namespace --set image.repository=registry.example.com/automation-guardrails';

/** Made in an empty cluster by kustomize; Helm installs afterwards. */
export const kustomized: readonly string[] = [
  'kubectl apply --server-side -k config/crds',
  'kubectl apply --server-side -k config/rbac',
  'kubectl apply --server-side -k config/probe',
  'kubectl apply -k config/admission',
  'kubectl apply --server-side --force-conflicts -k config/admission',
  'kubectl get ksw,cksw -A',
  'kubectl apply --server-side -k config/with-monitoring',
];

/** What takes that away again, where `kubectl guardrails uninstall` took the policies. */
export const kustomizedAway: readonly string[] = [
  'kubectl delete -k config/operator --ignore-not-found',
  'kubectl delete -k config/rbac --ignore-not-found',
];

/** Kinds of the Prometheus operator, as far as it takes them to be served. */
export const prometheusKinds = ['PrometheusRule', 'ServiceMonitor'].map((kind) => {
  const plural = `${kind.toLowerCase()}s`;
  const group = 'monitoring.coreos.com';
  const schema = {
    openAPIV3Schema: { type: 'object', 'x-kubernetes-preserve-unknown-fields': true },
  };
  return `kubectl apply -f - <<'END'\n${JSON.stringify({
    apiVersion: 'apiextensions.k8s.io/v1',
    kind: 'CustomResourceDefinition',
    metadata: { name: `${plural}.${group}` },
    spec: {
      group,
      scope: 'Namespaced',
      names: { kind, plural, singular: kind.toLowerCase() },
      versions: [{ name: 'v1', served: true, storage: true, schema }],
    },
  })}\nEND\nkubectl wait crd/${plural}.${group} --for=condition=Established`;
});

/** What the cluster of all other pages is made by, in this order; pages have some of it as well. */
export const installed: readonly string[] = [helmInstall];
export const populated: readonly string[] = [
  'kubectl create namespace finance',
  'kubectl label namespace finance automationguardrails.dev/environment=prod',
  // Each of them may do everything, so that it is the rules about persons that refuse.
  'kubectl create clusterrolebinding people --clusterrole=cluster-admin --user=alice --user=bob --user=carol --user=erin',
  'kubectl apply -k config/samples --as=erin',
  'kubectl wait awf/invoice-posting aid/invoice-posting --for=condition=Ready',
  ...[2, 3].flatMap((revision) => [
    `kubectl patch awf invoice-posting --type=merge -p '{"spec":{"change":{"version":"1.4.${revision + 1}"}}}' --as=erin`,
    `kubectl wait awr/invoice-posting.${revision} --for=create`,
  ]),
  'kubectl wait awf/invoice-posting --for=condition=Ready',
];

const killed = 'kubectl guardrails kill invoice-posting --reason drill --wait=false';
const released = 'kubectl guardrails release invoice-posting --reason done --as=bob';
const ready = 'kubectl wait awf/invoice-posting aid/invoice-posting --for=condition=Ready';

/** One run more at a time than the sample allows. */
const breached = [
  ...[1, 2, 3].map((run) => `kubectl create job run-${run} --from=cronjob/invoice-import`),
  'kubectl wait awf/invoice-posting --for=condition=LimitBreached',
];
const calmed = [
  'kubectl delete jobs run-1 run-2 run-3',
  'kubectl wait awf/invoice-posting --for=condition=LimitBreached=False',
];

const othersPolicy = `kubectl apply -f - <<'END'
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: allow-internal}
spec:
  podSelector: {}
  policyTypes: [Egress]
  egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8}}]}]
END`;

const everybodyReads =
  'kubectl create clusterrolebinding everybody-reads --clusterrole=view --group=system:authenticated';

/** A Workflow whose runs are approved each, as the guide has it, and one of them. */
const paymentRun = [
  `kubectl apply --as=erin -f - <<'END'
apiVersion: batch/v1
kind: CronJob
metadata: {name: payment-run}
spec:
  schedule: 0 6 1 * *
  jobTemplate:
    spec:
      template:
        spec:
          serviceAccountName: payment-run
          automountServiceAccountToken: false
          restartPolicy: Never
          securityContext: {runAsNonRoot: true, runAsUser: 65532, seccompProfile: {type: RuntimeDefault}}
          containers:
            - name: main
              image: registry.example/payment:1
              securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
---
apiVersion: automationguardrails.dev/v1alpha1
kind: AutomationIdentity
metadata: {name: payment-run}
spec:
  purpose: Pays suppliers.
  owner: {team: finance-automation, contact: finance-automation@example.com, escalation: "#finance-oncall"}
---
apiVersion: automationguardrails.dev/v1alpha1
kind: Workflow
metadata: {name: payment-run}
spec:
  owner: {team: finance-automation, contact: finance-automation@example.com, escalation: "#finance-oncall"}
  risk: High
  approval: {per: Run, timeout: 4h}
  targets:
    - {group: batch, kind: CronJob, name: payment-run}
END`,
  'kubectl wait awf/payment-run --for=jsonpath={.status.revision.digest}',
  'kubectl guardrails approve payment-run --reason drill --as=bob',
  'kubectl guardrails approve payment-run --reason drill --as=carol',
  'kubectl create job payment-run-29381 --from=cronjob/payment-run --as=erin',
];

/** The sample in another namespace, without workloads. */
const sampleIn = (namespace: string): string =>
  `cat config/samples/automation-identity.yaml config/samples/workflow.yaml | sed 's/namespace: finance/namespace: ${namespace}/; s/^# Who the/---\\n&/; s/^# What runs/---\\n&/' | kubectl apply --as=erin -f -`;

const asks = (risk: string): string =>
  `kubectl patch awf invoice-posting --as=alice --type=merge -p '{"spec":{"risk":"${risk}"}}'`;
const isAsked = "kubectl wait awf/invoice-posting --for=jsonpath='{.status.revision.digest}'";

/** By page; in the order in which they are run where that isn't the alphabet's. */
export const pages: Readonly<Record<string, Page>> = {
  'README.md': {
    steps: {
      'kubectl guardrails kill invoice-posting --reason "posts invoices twice"': {
        add: '--as=alice',
        says: 'Effective',
      },
      'kubectl guardrails release invoice-posting --reason fixed': {
        add: '--as=alice',
        exit: 1,
        says: 'alice engaged this kill switch; somebody else has to release it',
      },
      'kubectl guardrails release invoice-posting --reason "duplicate check deployed"': {
        before: ['kubectl annotate awf invoice-posting automationguardrails.dev/kill-switch-'],
        add: '--as=bob',
        says: 'Released',
      },
    },
  },
  'docs/faq.md': {
    steps: {
      'kubectl guardrails release NAME --reason "…"': { before: [killed], add: '--as=bob' },
    },
  },
  'docs/guides/approval.md': {
    before: [asks('High'), isAsked],
    steps: {
      'kubectl guardrails approve invoice-posting -n finance --reason "reviewed, FIN-311"': {
        says: '1 of 2 approvals missing',
      },
      'kubectl guardrails approvals payment-run -n finance': {
        before: paymentRun,
        says: 'job/payment-run-29381 waits for 2 of 2 approvals',
      },
    },
    after: [
      'kubectl delete job payment-run-29381',
      'kubectl delete cronjob payment-run',
      'kubectl delete aid payment-run',
      'kubectl delete awf payment-run',
      asks('Low'),
      ready,
    ],
  },
  'docs/guides/auditor.md': {
    steps: {
      'kubectl get gpol default -o yaml': {
        before: ['kubectl apply -f config/samples/policy/guardrail-policy.yaml'],
        after: ['kubectl delete gpol default'],
      },
    },
  },
  'docs/guides/evidence.md': {
    steps: {
      'kubectl guardrails evidence verify case.tar.gz --trusted-keys "$KEY"': {
        env: {
          KEY: "kubectl get configmap automation-guardrails-evidence-keys -n automation-guardrails -o jsonpath='{.data.*}' | cut -d' ' -f1",
        },
      },
    },
  },
  'docs/guides/limits.md': {
    before: breached,
    steps: {
      'kubectl -n finance annotate awf invoice-posting automationguardrails.dev/acknowledge="the ERP is back"':
        {
          before: [
            // As many as there were when it was acknowledged may be under way.
            'kubectl create job run-4 --from=cronjob/invoice-import',
            'kubectl wait awf/invoice-posting --for=condition=LimitBreached',
          ],
          after: ['kubectl delete job run-4'],
        },
      'kubectl -n finance get ksw invoice-posting -o custom-columns=NAME:.metadata.name,WORKFLOW:.spec.workflow,REASON:.spec.reason,ENGAGED-BY:.spec.engagedBy':
        { before: [killed], after: [released] },
    },
    after: calmed,
  },
  'docs/guides/platform-engineer.md': {
    steps: {
      // The cluster has an installation already, whose rights its operator needs.
      [`${helmInstall} --set 'namespaces={finance}'`]: { add: '--dry-run=server' },
      'kubectl delete clusterrolebinding automation-guardrails-operator automation-guardrails-grantable':
        { add: '--dry-run=server' },
      'kubectl delete clusterrole automation-guardrails-operator': { add: '--dry-run=server' },
    },
  },
  'docs/guides/policy.md': {
    steps: {
      'kubectl apply -f identity.yaml': {
        before: [
          "sed 's/expirationSeconds: 900/expirationSeconds: 3600/' config/samples/automation-identity.yaml > identity.yaml",
        ],
        exit: 1,
        says: 'beyond the ceiling tokenLifetime of the GuardrailPolicy default in prod: tokens live at most 30m: write expirationSeconds: 1800, or less',
      },
    },
    after: [
      'kubectl delete gpol default',
      'helm upgrade automation-guardrails charts/automation-guardrails -n automation-guardrails --reuse-values --set guardrailPolicy.create=false',
      ready,
    ],
  },
  'docs/guides/revisions.md': {
    steps: {
      'kubectl guardrails promote invoice-posting --from finance-dev --to finance-test': {
        before: [
          ...['dev', 'test'].flatMap((tier) => [
            `kubectl create namespace finance-${tier}`,
            `kubectl label namespace finance-${tier} automationguardrails.dev/environment=${tier}`,
          ]),
          sampleIn('finance-dev'),
          'kubectl wait awf/invoice-posting -n finance-dev --for=condition=Ready',
        ],
        says: 'Workflow finance-test/invoice-posting written',
      },
    },
  },
  'docs/guides/secrets.md': {
    steps: {
      'kubectl create secret generic erp -n finance-dev --from-literal=token=agprod_…': {
        // Who holds every verb may.
        before: ['kubectl create rolebinding dave --clusterrole=edit --user=dave -n finance-dev'],
        with: { 'agprod_…': `agprod_${'r'.repeat(32)}` },
        add: '--as=dave',
        exit: 1,
        says: 'this holds a token of an automation of prod',
      },
    },
  },
  'docs/guides/sre.md': {
    steps: {
      'kubectl guardrails kill --environment prod --reason "credentials leaked"': {
        after: ['kubectl guardrails release --environment prod --reason done --as=bob'],
      },
    },
    after: [released],
  },
  'docs/guides/tokens.md': {
    steps: {
      [`kubectl create -o jsonpath='{.status.authenticated}' -f - <<END
apiVersion: authentication.k8s.io/v1
kind: TokenReview
spec: {token: "$TOKEN", audiences: [https://vault.example.com]}
END`]: {
        env: {
          TOKEN:
            "kubectl get secret aid.invoice-posting.vault -o jsonpath='{.data.token}' | base64 -d",
        },
        says: 'true',
      },
    },
  },
  'docs/operations/install.md': {
    steps: {
      'kubectl delete -k crds': {
        before: [
          'kubectl apply --server-side -k crds',
          // A kind that no API server has listed yet is deleted minutes later.
          'until kubectl get awf,aid,ksw,cksw,gpol,awa,arv,awr,evs -A; do :; done',
        ],
      },
    },
  },
  'docs/operations/uninstall.md': {
    steps: {
      'kubectl patch pod NAME --type=merge -p \'{"spec":{"schedulingGates":[]}}\'': {
        before: [
          `kubectl apply -n default -f - <<'END'
apiVersion: v1
kind: Pod
metadata: {name: waits}
spec:
  schedulingGates: [{name: automationguardrails.dev/approval}]
  containers: [{name: main, image: registry.example/poster:2.4}]
END`,
        ],
        with: { NAME: 'waits' },
        add: '-n default',
      },
      'kubectl guardrails release NAME --break-glass --wait=false --reason "…"': { before: [killed] },
      'kubectl delete validatingadmissionpolicybindings,mutatingadmissionpolicybindings -l app.kubernetes.io/name=automation-guardrails':
        { before: ['kubectl apply --server-side -k config/admission'] },
    },
  },
  'docs/permissions.md': {
    before: [everybodyReads],
    steps: {
      'kubectl -n finance create rolebinding extra --clusterrole=edit --serviceaccount=finance:invoice-posting':
        {
          exit: 1,
          says: 'denied request: what an AutomationIdentity may do is in its spec.permissions',
        },
      'kubectl -n finance get aid invoice-posting -o jsonpath=\'{.status.conditions[?(@.type=="ExcessPermissions")].message}\'':
        { says: 'ClusterRoleBinding everybody-reads (ClusterRole view) allows' },
      'kubectl -n finance delete aid invoice-posting': {
        after: ['kubectl apply -k config/samples --as=erin', ready],
      },
    },
    after: ['kubectl delete clusterrolebinding everybody-reads'],
  },
  'docs/reference/conditions.md': {
    steps: {
      'kubectl label namespace NAME automationguardrails.dev/environment=prod': {
        with: { NAME: 'finance' },
      },
      'kubectl guardrails acknowledge awf/NAME -n NAMESPACE --reason "…"': {
        before: [asks('Medium'), isAsked, 'kubectl wait awf/invoice-posting --for=condition=Held'],
      },
      'kubectl guardrails approve NAME -n NAMESPACE --reason "…"': {
        after: [asks('Low'), ready],
      },
      'kubectl guardrails release NAME -n NAMESPACE --reason "…"': {
        before: [killed],
        add: '--as=bob',
      },
      'kubectl describe ksw NAME': { before: [killed], after: [released] },
      'kubectl describe ksw namespace -n NAMESPACE': {
        before: ['kubectl guardrails kill --whole-namespace --reason drill --wait=false'],
        after: ['kubectl guardrails release --whole-namespace --reason done --as=bob'],
      },
      'kubectl annotate awf NAME automationguardrails.dev/acknowledge="…"': {
        before: breached,
        after: calmed,
      },
      'kubectl delete pod NAME --force': {
        with: { NAME: '$(kubectl get pods -o jsonpath={.items[0].metadata.name})' },
      },
    },
  },
  'docs/runbooks/break-glass.md': {
    before: [killed, 'kubectl guardrails release invoice-posting --break-glass --reason drill'],
    after: [released],
  },
  'docs/runbooks/copies-remain.md': {
    steps: {
      'kubectl edit configmap NAME -n automation-guardrails': {
        with: { NAME: 'automation-guardrails-evidence-keys' },
      },
    },
  },
  'docs/runbooks/egress-widened.md': {
    before: [othersPolicy],
    after: [released, 'kubectl delete networkpolicy allow-internal'],
  },
  'docs/runbooks/excess-permissions.md': {
    before: [everybodyReads],
    after: ['kubectl delete clusterrolebinding everybody-reads'],
  },
  'docs/runbooks/held.md': {
    before: [
      'kubectl guardrails review invoice-posting --decision Keep --reason drill',
      `kubectl patch aid invoice-posting --as=erin --type=merge -p '{"spec":{"accessReview":{"onOverdue":"Hold"},"permissions":[{"apiGroups":[""],"resources":["configmaps"],"verbs":["get"],"reason":"Reads one."}]}}'`,
      'kubectl wait awf/invoice-posting aid/invoice-posting --for=condition=Held',
    ],
    after: ['kubectl apply -k config/samples --as=erin', ready],
  },
  'docs/runbooks/kill-switch.md': {
    steps: {
      'kubectl annotate namespace NAMESPACE automationguardrails.dev/kill-switch="credentials leaked"':
        {
          after: [
            'kubectl annotate namespace finance automationguardrails.dev/kill-switch-',
            'kubectl guardrails release --whole-namespace --reason done --as=bob',
          ],
        },
      'kubectl guardrails kill --everything --reason "signing key leaked"': {
        after: ['kubectl guardrails release --everything --reason done --as=bob'],
      },
      'kubectl guardrails kill --team payments --reason "rogue release"': {
        after: ['kubectl guardrails release --team payments --reason done --as=bob'],
      },
      'kubectl guardrails kill --risk High --reason "rogue release"': {
        after: ['kubectl guardrails release --risk High --reason done --as=bob'],
      },
      'kubectl guardrails release --environment prod --reason "key replaced"': { add: '--as=bob' },
      'kubectl guardrails release --cluster payments --reason "key replaced"': {
        before: [
          `kubectl apply -f - <<'END'
apiVersion: automationguardrails.dev/v1alpha1
kind: ClusterKillSwitch
metadata: {name: payments}
spec:
  namespaceSelector: {matchLabels: {team: payments}}
  reason: signing key leaked
END`,
        ],
        add: '--as=bob',
      },
      'kubectl -n NAMESPACE describe ksw NAME': { before: [killed] },
      'kubectl -n NAMESPACE get deployment NAME -o yaml --show-managed-fields': {
        with: { NAME: 'invoice-poster' },
      },
      'kubectl -n NAMESPACE delete serviceaccount NAME': {
        before: ['kubectl create serviceaccount of-another'],
        with: { NAME: 'of-another' },
      },
      "kubectl get cksw NAME -o jsonpath='{.status.fenced}'": {
        before: [
          'kubectl guardrails kill --team finance-platform --reason drill --wait=false',
        ],
        with: { NAME: 'team-finance-platform' },
        after: ['kubectl guardrails release --team finance-platform --reason done --as=bob'],
      },
      'kubectl guardrails release NAME -n NAMESPACE --reason "duplicate check deployed"': {
        add: '--as=bob',
      },
      'kubectl -n NAMESPACE annotate ksw NAME automationguardrails.dev/release="duplicate check deployed"':
        {
          before: [killed],
          add: '--as=bob',
          after: ['kubectl wait ksw/invoice-posting --for=delete'],
        },
      'kubectl guardrails release NAME -n NAMESPACE --break-glass --reason "nobody else is awake, payroll is due"':
        { before: [killed] },
    },
  },
  'docs/runbooks/limit-breached.md': {
    before: breached,
    steps: { 'kubectl guardrails release NAME -n NAMESPACE --reason "…"': { add: '--as=bob' } },
    after: calmed,
  },
  'docs/troubleshooting.md': {
    steps: {
      'kubectl get deployment NAME -n NAMESPACE -o yaml': { with: { NAME: 'invoice-poster' } },
    },
  },
  'docs/runbooks/run-spike.md': {
    steps: { 'kubectl guardrails release NAME -n NAMESPACE --reason "…"': { add: '--as=bob' } },
  },
};

/** Pages that come before all others, where nothing is installed yet. */
export const opening = ['docs/operations/install.md'];
/** Pages that come after all others. */
export const closing = ['docs/operations/uninstall.md'];

/** What isn't run here: how the command begins, and why. */
export const notRun: readonly { begins: string; why: string }[] = [
  { begins: 'docker ', why: 'no Docker here; test/exhaustive/image.test.ts runs the steps' },
  { begins: 'SOURCE_DATE_EPOCH=', why: 'no Docker here' },
  { begins: 'npm run demo', why: 'a cluster of its own; it verifies its own story' },
  { begins: 'npm test', why: 'it is what runs this' },
  { begins: 'npm run e2e', why: 'a cluster of its own; test/e2e/getting-started.test.ts' },
  { begins: 'npm run test:', why: 'other tests' },
  { begins: 'npm run bench', why: 'minutes, on a machine that does nothing else' },
  { begins: 'npm start', why: 'runs until it is stopped; this test runs src/main.ts' },
  { begins: 'npm run control-plane', why: 'runs until it is stopped' },
  { begins: 'npm run build', why: 'writes into the checkout; test/exhaustive/plugin.test.ts packs' },
  { begins: 'npm run generate', why: 'writes into the checkout; npm test looks for drift' },
  { begins: 'npm run pack:plugin', why: 'test/exhaustive/plugin.test.ts' },
  { begins: 'kubectl krew', why: 'an index by network; test/exhaustive/plugin.test.ts runs Krew' },
  { begins: 'promtool ', why: 'test/integration/monitoring.test.ts runs promtool on the rules' },
  { begins: 'vault ', why: 'no vault here; test/fault/vault-contract.test.ts asks a real one' },
  { begins: 'kubectl guardrails probe', why: 'needs a container; test/integration/egress.test.ts' },
  { begins: 'kubectl logs', why: 'no container runs on simulated nodes' },
  { begins: 'kubectl -n automation-guardrails logs', why: 'as kubectl logs' },
  { begins: 'kubectl -n NAMESPACE logs', why: 'as kubectl logs' },
  { begins: 'kubectl top', why: 'metrics of containers, which nobody serves here' },
  { begins: 'kubectl rollout restart', why: 'names the command' },
  { begins: 'kubectl rollout undo', why: 'names the command' },
  { begins: 'kubectl guardrails release --cluster NAME', why: 'names the form; it takes a reason' },
];
