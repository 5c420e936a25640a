{{- define "automation-guardrails.labels" -}}
app.kubernetes.io/name: automation-guardrails
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "automation-guardrails.selectorLabels" -}}
app.kubernetes.io/name: automation-guardrails
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* Port of the vault: that of its address, or that of HTTPS. */}}
{{- define "automation-guardrails.vaultPort" -}}
{{- $port := regexFind ":[0-9]+$" .Values.vault.address | trimPrefix ":" -}}
{{- default "443" $port -}}
{{- end }}
