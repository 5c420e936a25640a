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
