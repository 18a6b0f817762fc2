{{/*
(root, into): fills `into` with the components by name: the values that hold for each, defaults merged under its own
(0, false and "" of its own count), and what follows from them. Every template begins with this.
*/}}
{{- define "marginal.components" -}}
{{- $root := .root -}}
{{- $into := .into -}}
{{- $fullname := include "marginal.fullname" $root -}}
{{- range $name := list "router" "small" "large" -}}
  {{- $isRouter := eq $name "router" -}}
  {{- $own := ternary $root.Values.router (get $root.Values.tiers $name) $isRouter | default dict -}}
  {{- $c := mergeOverwrite (deepCopy $root.Values.defaults) (deepCopy $own) -}}
  {{- $_ := set $c "component" $name -}}
  {{- $_ := set $c "isRouter" $isRouter -}}
  {{- $_ := set $c "fullname" (printf "%s-%s" $fullname $name) -}}
  {{- $_ := set $c "port" (get (dict "router" 50051 "small" 50052 "large" 50053) $name) -}}
  {{- $_ := set $c "program" (ternary "marginal-router" (printf "marginal-%s-model" $name) $isRouter) -}}
  {{- $_ := set $c "health" (ternary "marginal.v1.RouterService" "marginal.v1.ModelService" $isRouter) -}}
  {{- $_ := set $c "stateful" (and $isRouter (eq (dig "journal" "kind" "" $c) "claim")) -}}
  {{- $kind := $c.autoscaling.kind -}}
  {{- $least := ternary 0 1 (and (eq $kind "keda") (eq $name "large")) -}}
  {{- if not (kindIs "invalid" $c.autoscaling.minReplicas) -}}{{- $least = int $c.autoscaling.minReplicas -}}{{- end -}}
  {{- $_ := set $c "leastReplicas" (ternary (int $c.replicas) $least (eq $kind "none")) -}}
  {{- $_ := set $c "mostReplicas" (ternary (int $c.replicas) (int $c.autoscaling.maxReplicas) (eq $kind "none")) -}}
  {{- /* What is downloaded is kept at /models; what is on a claim may be there already. */ -}}
  {{- $keeps := and (not $isRouter) (or (include "marginal.downloads" $c) (and (eq $c.engine.kind "embedded") (eq $c.modelCache.kind "claim"))) -}}
  {{- $_ := set $c "hasModels" (not (empty $keeps)) -}}
  {{- $_ := set $into $name $c -}}
{{- end -}}
{{- $_ := set $into.router "discovers" (eq $into.router.discovery "endpointslices") -}}
{{- range $name, $c := $into -}}
  {{- /* DNS answers are kept for 30 s, and the router looks every 5 s. */ -}}
  {{- $sleep := ternary 5 35 (or $c.isRouter $into.router.discovers) -}}
  {{- if not (kindIs "invalid" $c.shutdown.preStopSeconds) -}}{{- $sleep = int $c.shutdown.preStopSeconds -}}{{- end -}}
  {{- $_ := set $c "preStopSeconds" $sleep -}}
{{- end -}}
{{- $_ := set $into.router "scales" (or (eq $into.small.autoscaling.kind "keda") (eq $into.large.autoscaling.kind "keda")) -}}
{{- range $name, $c := $into -}}
  {{- $engine := 0 -}}
  {{- if and (not $c.isRouter) (eq $c.engine.kind "sidecar") -}}{{- $engine = int $c.engine.sidecar.startupSeconds -}}{{- end -}}
  {{- $_ := set $c "startSeconds" (add (int $c.startup.seconds) $engine) -}}
{{- end -}}
{{- /* A router is ready after its small tier. */ -}}
{{- $_ := set $into.router "startSeconds" (max $into.router.startSeconds (add $into.small.startSeconds 60)) -}}
{{- end -}}

{{/* Streams end, then costs are settled and spans are sent (20 s), before a pod is ended. */}}
{{- define "marginal.graceSeconds" -}}
{{- add .c.preStopSeconds (int .c.shutdown.drainSeconds) (int .root.Values.longestStreamSeconds) 20 -}}
{{- end -}}

{{/* Four fifths of a quantity in bytes: a volume is never filled to its end. */}}
{{- define "marginal.mostBytes" -}}
{{- $units := dict "" 1 "k" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 -}}
{{- $number := regexFind "^[0-9]+" . -}}
{{- div (mul (int64 $number) (get $units (trimPrefix $number .) | int64) 4) 5 -}}
{{- end -}}

{{/* Whether a pod itself can sleep before it is told to stop; else the program takes calls so much longer. */}}
{{- define "marginal.podSleeps" -}}
{{- if semverCompare ">=1.30.0-0" .root.Capabilities.KubeVersion.Version }}yes{{ end -}}
{{- end -}}

{{- define "marginal.hasKeys" -}}{{ if .Values.access.keysSecret.name }}yes{{ end }}{{- end -}}

{{/* Whether a tier downloads from the model hub. */}}
{{- define "marginal.downloads" -}}
{{- $model := .engine.embedded.model -}}
{{- if eq .engine.kind "sidecar" }}yes
{{- else if and (eq .engine.kind "embedded") $model (not (regexMatch "^(home-(small|large)$|/|scripted:)" $model)) }}yes{{ end -}}
{{- end -}}

{{/* The port of a URL. */}}
{{- define "marginal.urlPort" -}}
{{- $parts := urlParse . -}}
{{- $port := regexFind ":[0-9]+$" $parts.host | trimPrefix ":" -}}
{{- $port | default (get (dict "http" "80" "https" "443" "valkey" "6379" "valkeys" "6379" "redis" "6379" "rediss" "6379") $parts.scheme) -}}
{{- end -}}

{{- define "marginal.valkeyUrl" -}}
{{- if eq .Values.valkey.kind "own" }}valkey://{{ include "marginal.fullname" . }}-valkey:6379/0
{{- else if eq .Values.valkey.kind "external" }}
{{- $user := "" }}{{ with .Values.valkey.user }}{{ $user = printf "%s@" (urlquery .) }}{{ end }}
{{- .Values.valkey.url | replace "://" (print "://" $user) }}{{ end -}}
{{- end -}}

{{/* A map without its keys of null: what a component takes away from its defaults. */}}
{{- define "marginal.withoutNulls" -}}
{{- $kept := dict -}}
{{- range $key, $value := . -}}
  {{- if not (kindIs "invalid" $value) -}}{{- $_ := set $kept $key $value -}}{{- end -}}
{{- end -}}
{{- toJson $kept -}}
{{- end -}}

{{/* Of the pods that are no component. */}}
{{- define "marginal.podSecurity" -}}{{ include "marginal.withoutNulls" .Values.defaults.podSecurityContext }}{{- end -}}
{{- define "marginal.containerSecurity" -}}{{ include "marginal.withoutNulls" .Values.defaults.securityContext }}{{- end -}}
