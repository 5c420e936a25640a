import { exit, UsageError, type Command } from '../command.ts';

/**
 * kubectl asks a program of this name for completions of the plugin; it speaks the protocol of
 * cobra: candidates, a line each, and a last line with a colon and what the shell should do.
 */
const kubectlHook = 'kubectl_complete-guardrails';

const scripts = {
  bash: `# Load it with: source <(kubectl guardrails completion bash)
_kubectl_guardrails() {
  local IFS=$'\\n'
  COMPREPLY=($(compgen -W "$(kubectl-guardrails __complete "\${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null | grep -v '^:')" -- "\${COMP_WORDS[COMP_CWORD]}"))
}
complete -F _kubectl_guardrails kubectl-guardrails`,
  zsh: `#compdef kubectl-guardrails
# Load it with: source <(kubectl guardrails completion zsh)
_kubectl_guardrails() {
  local -a found
  found=(\${(f)"$(kubectl-guardrails __complete "\${(@)words[2,CURRENT]}" 2>/dev/null | grep -v '^:')"})
  compadd -a found
}
compdef _kubectl_guardrails kubectl-guardrails`,
  fish: `# Load it with: kubectl guardrails completion fish | source
complete -c kubectl-guardrails -f -a '(kubectl-guardrails __complete (commandline -opc)[2..] (commandline -ct) 2>/dev/null | string match -v ":*")'`,
  kubectl: `#!/bin/sh
# Put it on the PATH as ${kubectlHook}, executable: then "kubectl guardrails <TAB>" completes, too.
exec kubectl-guardrails __complete "$@"`,
} as const;

const shells = Object.keys(scripts);

/** Prints a script that makes a shell complete commands, flags and names. */
export const completionCommand: Command = {
  name: 'completion',
  usage: [
    [
      'completion SHELL',
      `a script that completes for ${shells.slice(0, -1).join(', ')}; kubectl: for "kubectl guardrails"`,
    ],
  ],
  options: {},
  isOffline: () => true,
  run: async ({ names: [shell = ''], stdout }) => {
    if (!isShell(shell)) {
      throw new UsageError(
        `SHELL is one of ${shells.join(', ')}: kubectl guardrails completion bash`,
      );
    }
    stdout(scripts[shell]);
    return exit.ok;
  },
};

function isShell(shell: string): shell is keyof typeof scripts {
  return shells.includes(shell);
}
