{{/* Who may talk to whom. Ports are numbers here, since not every network knows the names of a destination's ports. */}}

{{- define "marginal.peer" -}}
- podSelector:
    matchLabels:
      {{- include "marginal.selector" . | nindent 6 }}
{{- end -}}

{{- define "marginal.toDns" -}}
{{- $dns := .Values.networkPolicy.dns -}}
- to: {{ toJson $dns.peers }}
  ports: [{{ range $i, $port := $dns.ports }}{{ if $i }}, {{ end }}{protocol: UDP, port: {{ $port }}}, {protocol: TCP, port: {{ $port }}}{{ end }}]
{{- end -}}

{{/*
(there, urls): egress to the peers of `there`, or to anywhere, at its ports. Where it names none: to every port of the
peers, or anywhere at the ports of the URLs.
*/}}
{{- define "marginal.toThere" -}}
{{- $ports := .there.ports -}}
{{- if not (or $ports .there.peers) -}}
  {{- range .urls }}{{ $ports = append $ports (include "marginal.urlPort" .) }}{{ end -}}
{{- end -}}
{{- if $ports -}}
- ports: [{{ range $i, $port := uniq $ports }}{{ if $i }}, {{ end }}{protocol: TCP, port: {{ $port }}}{{ end }}]
  {{- with .there.peers }}
  to: {{ toJson . }}
  {{- end }}
{{- else -}}
- to: {{ toJson .there.peers }}
{{- end }}
{{- end -}}

{{- define "marginal.public" -}}
- ipBlock: {cidr: 0.0.0.0/0, except: [10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, 169.254.0.0/16]}
- ipBlock: {cidr: "::/0", except: ["fc00::/7", "fe80::/10"]}
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
  {{- with $n.extraIngress.router }}
  {{- toYaml . | nindent 2 }}
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
  {{- include "marginal.toThere" (dict "there" $v.valkey "urls" (list $v.valkey.url)) | nindent 2 }}
  {{- end }}
  {{- with $v.telemetry.collector }}
  {{- include "marginal.toThere" (dict "there" $n.collector "urls" (list .)) | nindent 2 }}
  {{- end }}
  {{- if .all.router.discovers }}
  {{- include "marginal.toThere" (dict "there" $n.apiServer) | nindent 2 }}
  {{- end }}
  {{- with $n.extraEgress.router }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{/* A tier that has everything in its image talks to nobody. */}}
{{- define "marginal.tierTraffic" -}}
{{- $root := .root -}}{{- $v := .root.Values -}}{{- $c := .c -}}{{- $n := $v.networkPolicy -}}
{{- $external := eq $c.engine.kind "external" -}}
{{- $downloads := and $n.hub.enabled (include "marginal.downloads" $c) -}}
{{- $more := get $n.extraEgress $c.component -}}
ingress:
  - from:
      {{- include "marginal.peer" (dict "root" $root "component" "router") | nindent 6 }}
    ports: [{protocol: TCP, port: {{ $c.port }}}]
  {{- with include "marginal.scraped" $v }}
  {{- nindent 2 . }}
  {{- end }}
  {{- with get $n.extraIngress $c.component }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- if or $external $downloads $v.telemetry.collector $more }}
egress:
  {{- include "marginal.toDns" $root | nindent 2 }}
  {{- if $external }}
  {{- include "marginal.toThere" (dict "there" $c.engine.external "urls" $c.engine.external.endpoints) | nindent 2 }}
  {{- end }}
  {{- if $downloads }}
  {{- include "marginal.toThere" (dict "there" (dict "peers" ($n.hub.peers | default (include "marginal.public" . | fromYamlArray)) "ports" $n.hub.ports)) | nindent 2 }}
  {{- end }}
  {{- with $v.telemetry.collector }}
  {{- include "marginal.toThere" (dict "there" $n.collector "urls" (list .)) | nindent 2 }}
  {{- end }}
  {{- with $more }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- else }}
egress: []
{{- end }}
{{- end -}}
