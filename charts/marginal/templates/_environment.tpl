{{/* (root, all, c): how a program is told what to do. Files that may change are in directories, never by subPath. */}}
{{- define "marginal.environment" -}}
{{- $root := .root -}}{{- $v := .root.Values -}}{{- $c := .c -}}
{{- $drain := int $c.shutdown.drainSeconds -}}
{{- if not (include "marginal.podSleeps" .) -}}{{- $drain = add $drain $c.preStopSeconds -}}{{- end -}}
- {name: HOME, value: /tmp}
- {name: MARGINAL_LISTEN, value: "[::]:{{ $c.port }}"}
- {name: MARGINAL_MAX_CALLS, value: {{ $c.maxCalls | int | quote }}}
- {name: MARGINAL_DRAIN_SECONDS, value: {{ $drain | quote }}}
- {name: MARGINAL_GRACE_SECONDS, value: {{ $v.longestStreamSeconds | int | quote }}}
{{- if $v.telemetry.collector }}
- {name: MARGINAL_TRACE_EXPORTER, value: otlp}
- {name: MARGINAL_OTLP_ENDPOINT, value: {{ $v.telemetry.collector | quote }}}
- {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
- {name: OTEL_RESOURCE_ATTRIBUTES, value: "k8s.pod.name=$(POD_NAME),k8s.namespace.name={{ $root.Release.Namespace }}"}
{{- end }}
{{- if $v.metrics.enabled }}
- {name: MARGINAL_METRICS_LISTEN, value: "[::]:9464"}
{{- end }}
{{- if $v.tls.existingSecret }}
- {name: MARGINAL_TLS_CERT, value: /etc/marginal/tls/tls.crt}
- {name: MARGINAL_TLS_KEY, value: /etc/marginal/tls/tls.key}
- {name: MARGINAL_HEALTH_LISTEN, value: "[::]:50056"}
{{- if or (not $c.isRouter) $v.tls.callersShowCertificates }}
- {name: MARGINAL_TLS_CLIENT_CA, value: /etc/marginal/tls/ca.crt}
{{- end }}
{{- end }}
{{- if $c.isRouter }}
{{- include "marginal.routerEnvironment" . }}
{{- else }}
{{- include "marginal.engineEnvironment" . }}
{{- end }}
{{- with $c.env }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "marginal.routerEnvironment" -}}
{{- $root := .root -}}{{- $v := .root.Values -}}{{- $c := .c }}
{{- range $tier := list "small" "large" }}
{{- $t := get $.all $tier }}
- {name: MARGINAL_{{ upper $tier }}, value: "{{ if $c.discovers }}kubernetes:///{{ $root.Release.Namespace }}/{{ $t.fullname }}:grpc{{ else }}dns:///{{ $t.fullname }}-headless:{{ $t.port }}{{ end }}"}
{{- end }}
{{- if $c.scales }}
- {name: MARGINAL_SCALER_LISTEN, value: "[::]:50055"}
{{- end }}
- {name: MARGINAL_MAXIMUM_DEADLINE_SECONDS, value: {{ $v.longestStreamSeconds | int | quote }}}
- {name: MARGINAL_POLICY_FILE, value: /etc/marginal/settings/policies.toml}
- {name: MARGINAL_TENANTS_FILE, value: /etc/marginal/settings/tenants.toml}
- {name: MARGINAL_JOURNAL, value: /var/lib/marginal/journal}
- {name: MARGINAL_JOURNAL_DAYS, value: {{ $c.journal.days | int | quote }}}
- {name: MARGINAL_JOURNAL_BYTES, value: {{ include "marginal.mostBytes" $c.journal.size | quote }}}
- {name: MARGINAL_STATE_FILE, value: /var/lib/marginal/state.json}
{{- if include "marginal.hasKeys" $root }}
- {name: MARGINAL_KEYS_FILE, value: "/etc/marginal/keys/{{ $v.access.keysSecret.key }}"}
{{- else }}
- {name: MARGINAL_INSECURE, value: "true"}
{{- if $v.access.trustTenantHeader }}
- {name: MARGINAL_TRUST_TENANT_HEADER, value: "true"}
{{- end }}
{{- end }}
{{- if $v.access.reflection }}
- {name: MARGINAL_REFLECTION, value: "true"}
{{- end }}
{{- if $v.tls.existingSecret }}
- {name: MARGINAL_TLS_CA, value: /etc/marginal/tls/ca.crt}
{{- end }}
{{- with include "marginal.valkeyUrl" $root }}
- {name: MARGINAL_STORE, value: {{ . | quote }}}
- {name: MARGINAL_STORE_NAME, value: "{{ $root.Release.Namespace }}/{{ include "marginal.fullname" $root }}"}
- {name: MARGINAL_FAILURE_MODE, value: {{ $v.valkey.failureMode }}}
{{- if not (kindIs "invalid" $v.valkey.sliceShare) }}
- {name: MARGINAL_SLICE_SHARE, value: {{ $v.valkey.sliceShare | quote }}}
{{- end }}
{{- if $v.valkey.passwordSecret.name }}
- {name: MARGINAL_STORE_PASSWORD_FILE, value: "/etc/marginal/valkey/{{ $v.valkey.passwordSecret.key }}"}
{{- end }}
{{- if $v.valkey.caSecret.name }}
- {name: MARGINAL_STORE_CA, value: "/etc/marginal/valkey-ca/{{ $v.valkey.caSecret.key }}"}
{{- end }}
{{- end }}
{{- end -}}

{{- define "marginal.engineEnvironment" -}}
{{- $e := .c.engine -}}
{{- if eq $e.kind "embedded" }}
- {name: MARGINAL_ENGINE, value: embedded}
{{- with $e.embedded.model }}
- {name: MARGINAL_MODEL, value: {{ . | quote }}}
{{- end }}
{{- with $e.embedded.parallel }}
- {name: MARGINAL_PARALLEL, value: {{ . | int | quote }}}
{{- end }}
{{- with $e.embedded.threads }}
- {name: MARGINAL_THREADS, value: {{ . | int | quote }}}
{{- end }}
{{- if include "marginal.downloads" .c }}
{{ include "marginal.hubEnvironment" .c }}
{{- end }}
{{- else }}
- {name: MARGINAL_ENGINE, value: {{ $e.api }}}
{{- if eq $e.kind "sidecar" }}
- {name: MARGINAL_ENDPOINT, value: "http://127.0.0.1:{{ int $e.sidecar.port }}"}
{{- else }}
- {name: MARGINAL_ENDPOINT, value: {{ join "," $e.external.endpoints | quote }}}
{{- if $e.external.apiKeySecret.name }}
- {name: MARGINAL_API_KEY_FILE, value: "/etc/marginal/engine-key/{{ $e.external.apiKeySecret.key }}"}
{{- end }}
{{- if $e.external.caSecret.name }}
- {name: MARGINAL_CA_FILE, value: "/etc/marginal/engine-ca/{{ $e.external.caSecret.key }}"}
{{- end }}
{{- end }}
{{- with $e.route }}
- {name: MARGINAL_ROUTE, value: {{ . }}}
{{- end }}
{{- with $e.model }}
- {name: MARGINAL_ENGINE_MODEL, value: {{ . | quote }}}
{{- end }}
{{- with $e.template }}
- {name: MARGINAL_TEMPLATE, value: {{ . | quote }}}
{{- end }}
{{- with $e.extraBody }}
- {name: MARGINAL_EXTRA_BODY, value: {{ toJson . | quote }}}
{{- end }}
{{- with $e.firstTokenSeconds }}
- {name: MARGINAL_FIRST_TOKEN_SECONDS, value: {{ . | quote }}}
{{- end }}
{{- with $e.interTokenSeconds }}
- {name: MARGINAL_INTER_TOKEN_SECONDS, value: {{ . | quote }}}
{{- end }}
{{- end }}
{{- with $e.contextTokens }}
- {name: MARGINAL_CONTEXT_TOKENS, value: {{ . | int | quote }}}
{{- end }}
{{- end -}}

{{- define "marginal.sidecarEnvironment" -}}
- {name: HOME, value: /tmp}
- {name: USER, value: marginal}
{{ include "marginal.hubEnvironment" . }}
{{- end -}}

{{/* The hub's programs take a token from nowhere else on every engine. */}}
{{- define "marginal.hubEnvironment" -}}
- {name: HF_HOME, value: /models}
{{- with .hubTokenSecret }}
{{- if .name }}
- name: HF_TOKEN
  valueFrom: {secretKeyRef: {name: {{ .name | quote }}, key: {{ .key | quote }}}}
{{- end }}
{{- end }}
{{- end -}}
