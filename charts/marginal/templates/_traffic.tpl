{{/* Who may talk to whom. Ports are numbers here, since not every network knows the names of a destination's ports. */}}

{{- define "marginal.peer" -}}
- podSelector:
    matchLabels:
      {{- include "marginal.selector" . | nindent 6 }}
{{- end -}}

{{- define "marginal.toDns" -}}
- to: {{ toJson .Values.networkPolicy.dns }}
  ports: [{protocol: UDP, port: 53}, {protocol: TCP, port: 53}]
{{- end -}}

{{/* (peers, ports): egress to these peers, or to anywhere, at these ports. */}}
{{- define "marginal.toPorts" -}}
- {{ with .peers }}to: {{ toJson . }}
  {{ end }}ports: [{{ range $i, $port := .ports }}{{ if $i }}, {{ end }}{protocol: TCP, port: {{ $port }}}{{ end }}]
{{- end -}}

{{- define "marginal.scraped" -}}
{{- if .metrics.enabled -}}
- from: {{ toJson .networkPolicy.scrapers }}
  ports: [{protocol: TCP, port: 9464}]
{{- end -}}
{{- end -}}

{{- define "marginal.routerTraffic" -}}
{{- $root := .root -}}{{- $v := .root.Values -}}{{- $n := $v.networkPolicy -}}
ingress:
  - ports: [{protocol: TCP, port: 50051}]
    {{- if not (and (empty $n.callers) (eq $v.access.withoutKeys "anyone") (not (include "marginal.hasKeys" $root))) }}
    from:
      {{- if $n.callers }}
      {{- toYaml $n.callers | nindent 6 }}
      {{- include "marginal.peer" (dict "root" $root "component" "test") | nindent 6 }}
      {{- else }}
      - podSelector: {}
      {{- end }}
    {{- end }}
  {{- if .all.router.scales }}
  - from: {{ toJson $n.keda }}
    ports: [{protocol: TCP, port: 50055}]
  {{- end }}
  {{- with include "marginal.scraped" $v }}
  {{- nindent 2 . }}
  {{- end }}
egress:
  {{- include "marginal.toDns" $root | nindent 2 }}
  {{- range $tier := list "small" "large" }}
  - to:
      {{- include "marginal.peer" (dict "root" $root "component" $tier) | nindent 6 }}
    ports: [{protocol: TCP, port: {{ (get $.all $tier).port }}}]
  {{- end }}
  {{- if eq $v.valkey.kind "own" }}
  - to:
      {{- include "marginal.peer" (dict "root" $root "component" "valkey") | nindent 6 }}
    ports: [{protocol: TCP, port: 6379}]
  {{- else if eq $v.valkey.kind "external" }}
  {{- include "marginal.toPorts" (dict "peers" $v.valkey.peers "ports" (list (include "marginal.urlPort" $v.valkey.url))) | nindent 2 }}
  {{- end }}
  {{- with $v.telemetry.collector }}
  {{- include "marginal.toPorts" (dict "peers" $n.collector "ports" (list (include "marginal.urlPort" .))) | nindent 2 }}
  {{- end }}
  {{- if .all.router.discovers }}
  {{- include "marginal.toPorts" (dict "peers" $n.apiServer "ports" (list 443 6443)) | nindent 2 }}
  {{- end }}
{{- end -}}

{{/* A tier that has everything in its image talks to nobody. */}}
{{- define "marginal.tierTraffic" -}}
{{- $root := .root -}}{{- $v := .root.Values -}}{{- $c := .c -}}
{{- $engines := list -}}
{{- if eq $c.engine.kind "external" -}}
  {{- range $c.engine.external.endpoints -}}{{- $engines = append $engines (include "marginal.urlPort" .) -}}{{- end -}}
{{- end -}}
{{- $downloads := include "marginal.downloads" $c -}}
ingress:
  - from:
      {{- include "marginal.peer" (dict "root" $root "component" "router") | nindent 6 }}
    ports: [{protocol: TCP, port: {{ $c.port }}}]
  {{- with include "marginal.scraped" $v }}
  {{- nindent 2 . }}
  {{- end }}
{{- if or $engines $downloads $v.telemetry.collector }}
egress:
  {{- include "marginal.toDns" $root | nindent 2 }}
  {{- with $engines }}
  {{- include "marginal.toPorts" (dict "peers" $c.engine.external.peers "ports" (uniq .)) | nindent 2 }}
  {{- end }}
  {{- if $downloads }}
  - to:
      - ipBlock: {cidr: 0.0.0.0/0, except: [10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, 169.254.0.0/16]}
      - ipBlock: {cidr: "::/0", except: ["fc00::/7", "fe80::/10"]}
    ports: [{protocol: TCP, port: 443}]
  {{- end }}
  {{- with $v.telemetry.collector }}
  {{- include "marginal.toPorts" (dict "peers" $v.networkPolicy.collector "ports" (list (include "marginal.urlPort" .))) | nindent 2 }}
  {{- end }}
{{- else }}
egress: []
{{- end }}
{{- end -}}
