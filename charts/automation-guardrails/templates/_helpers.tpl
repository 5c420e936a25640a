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

{{/* Binds a ClusterRole to the operator: in each of the namespaces, or everywhere where none are listed. */}}
{{- define "automation-guardrails.bindings" -}}
{{- $root := index . 0 }}
{{- $name := index . 1 }}
{{- range $namespace := default (list "") (index . 2) }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ ternary "RoleBinding" "ClusterRoleBinding" (ne $namespace "") }}
metadata:
  name: automation-guardrails-{{ $name }}
  {{- with $namespace }}
  namespace: {{ . }}
  {{- end }}
  labels:
    {{- include "automation-guardrails.labels" $root | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: ClusterRole
  name: automation-guardrails-{{ $name }}
subjects:
  - kind: ServiceAccount
    name: automation-guardrails
    namespace: {{ $root.Release.Namespace }}
{{- end }}
{{- end }}
