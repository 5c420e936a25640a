/** What Krew needs to know of `kubectl guardrails`, and how it is started. */

/** The oldest Node that runs it. */
export const NODE_MAJOR = 24;

/**
 * Starts the plugin with the Node of the user. Krew links to this file, so its folder is found
 * through the link.
 */
export const launcher = `#!/bin/sh
set -eu
file=$0
while [ -L "$file" ]; do
  target=$(readlink "$file")
  case $target in
    /*) file=$target ;;
    *) file=$(dirname "$file")/$target ;;
  esac
done
major=$(node --version 2>/dev/null | sed -n 's/^v\\([0-9]*\\)\\..*/\\1/p') || major=
if [ -z "$major" ] || [ "$major" -lt ${NODE_MAJOR} ]; then
  echo "kubectl guardrails needs Node ${NODE_MAJOR} or later on the PATH: https://nodejs.org" >&2
  exit 1
fi
exec node "$(dirname "$file")/dist/cli/main.js" "$@"
`;

/** One release of the plugin, as it is put where people fetch it. */
export interface PluginRelease {
  /** Without the `v`. */
  version: string;
  /** Of the archive. */
  url: string;
  sha256: string;
  homepage: string;
}

/** The manifest of a release, for an index of Krew. */
export function krewManifest({ version, url, sha256, homepage }: PluginRelease): object {
  return {
    apiVersion: 'krew.googlecontainertools.github.com/v1alpha2',
    kind: 'Plugin',
    metadata: { name: 'guardrails' },
    spec: {
      version: `v${version}`,
      homepage,
      shortDescription: 'Stop, release and explain automations',
      description: [
        'Stops automations (jobs, bots, integrations, agents) that run in a cluster with',
        'Automation Guardrails, and shows what holds them: kill, release, rotate, status, explain,',
        'tree, who-can, timeline, doctor. Works with your own kubeconfig and rights.',
        '',
      ].join('\n'),
      caveats: `It needs Node ${NODE_MAJOR} or later on the PATH.\nIs the cluster ready? kubectl guardrails doctor\n`,
      platforms: [
        {
          selector: {
            matchExpressions: [{ key: 'os', operator: 'In', values: ['linux', 'darwin'] }],
          },
          uri: url,
          sha256,
          bin: 'kubectl-guardrails',
        },
      ],
    },
  };
}
