{{/* What things are called. The longest suffix is -large-headless. */}}

{{- define "marginal.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 45 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 45 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 45 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* (root, component) selects one component's pods of one release, for ever. */}}
{{- define "marginal.selector" -}}
app.kubernetes.io/name: {{ default .root.Chart.Name .root.Values.nameOverride | trunc 63 | trimSuffix "-" | quote }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* (root, component) of every object; pods have no version, so that a new chart alone restarts none. */}}
{{- define "marginal.labels" -}}
{{ include "marginal.selector" . }}
app.kubernetes.io/part-of: marginal
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* (root, image): by digest where one is given. */}}
{{- define "marginal.image" -}}
{{- $all := .root.Values.image -}}
{{- $registry := .image.registry | default $all.registry -}}
{{- if $registry }}{{ trimSuffix "/" $registry }}/{{ end }}{{ .image.repository }}
{{- with .image.digest }}@{{ . }}{{ else }}:{{ .image.tag | default $all.tag | default .root.Chart.AppVersion }}{{ end -}}
{{- end -}}

{{- define "marginal.pullPolicy" -}}
{{ .image.pullPolicy | default .root.Values.image.pullPolicy }}
{{- end -}}

{{- define "marginal.serviceAccount" -}}
{{- if .serviceAccount.create }}{{ .serviceAccount.name | default .fullname }}{{ else }}{{ .serviceAccount.name | default "default" }}{{ end -}}
{{- end -}}
