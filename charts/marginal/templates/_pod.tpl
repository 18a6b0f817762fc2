{{/* (root, all, c): the pod of a component. */}}
{{- define "marginal.pod" -}}
{{- $root := .root -}}{{- $v := .root.Values -}}{{- $c := .c -}}
{{- $tls := $v.tls.existingSecret -}}
{{- $sidecar := and (not $c.isRouter) (eq $c.engine.kind "sidecar") -}}
{{- $downloads := and (not $c.isRouter) (include "marginal.downloads" $c) -}}
serviceAccountName: {{ include "marginal.serviceAccount" $c | quote }}
automountServiceAccountToken: {{ and $c.isRouter $c.discovers }}
enableServiceLinks: false
terminationGracePeriodSeconds: {{ include "marginal.graceSeconds" . }}
securityContext: {{ include "marginal.withoutNulls" $c.podSecurityContext }}
{{- with $v.image.pullSecrets }}
imagePullSecrets: {{ toJson . }}
{{- end }}
{{- with $c.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with $c.runtimeClassName }}
runtimeClassName: {{ . | quote }}
{{- end }}
{{- with $c.nodeSelector }}
nodeSelector: {{ toJson . }}
{{- end }}
{{- with $c.tolerations }}
tolerations: {{ toJson . }}
{{- end }}
{{- with $c.affinity }}
affinity: {{ toJson . }}
{{- end }}
{{- if ne $c.spread "none" }}
topologySpreadConstraints:
  {{- /* Zones never hold a pod back: not every node is in one, and a zone of tainted nodes could never be filled. */}}
  {{- range $key := list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - maxSkew: 1
    topologyKey: {{ $key }}
    whenUnsatisfiable: {{ ternary "DoNotSchedule" "ScheduleAnyway" (and (eq $c.spread "hard") (hasPrefix "kubernetes.io" $key)) }}
    nodeTaintsPolicy: Honor
    {{- if not $c.stateful }}
    matchLabelKeys: [pod-template-hash]
    {{- end }}
    labelSelector:
      matchLabels:
        {{- include "marginal.selector" (dict "root" $root "component" $c.component) | nindent 8 }}
  {{- end }}
{{- end }}
{{- if or $sidecar $c.extraInitContainers }}
initContainers:
  {{- range $c.extraInitContainers }}
  - {{ toJson . }}
  {{- end }}
  {{- if $sidecar }}
  {{- include "marginal.engine" . | nindent 2 }}
  {{- end }}
{{- end }}
containers:
  - name: {{ $c.component }}
    image: {{ include "marginal.image" (dict "root" $root "image" $c.image) | quote }}
    imagePullPolicy: {{ include "marginal.pullPolicy" (dict "root" $root "image" $c.image) }}
    command: [{{ $c.program }}]
    securityContext: {{ include "marginal.withoutNulls" $c.securityContext }}
    env:
      {{- include "marginal.environment" . | nindent 6 }}
    {{- with $c.envFrom }}
    envFrom: {{ toJson . }}
    {{- end }}
    ports:
      - {name: grpc, containerPort: {{ $c.port }}}
      {{- if and $c.isRouter $c.scales }}
      - {name: scaler, containerPort: 50055}
      {{- end }}
      {{- if $tls }}
      - {name: health, containerPort: 50056}
      {{- end }}
      {{- if $v.metrics.enabled }}
      - {name: metrics, containerPort: 9464}
      {{- end }}
    {{- /* kubelet's gRPC probes speak no TLS. A tier has started when its model works, a router when it answers. */}}
    {{- $probed := ternary 50056 $c.port (not (empty $tls)) }}
    startupProbe:
      grpc: {port: {{ $probed }}, service: {{ ternary "liveness" $c.health $c.isRouter }}}
      periodSeconds: 2
      failureThreshold: {{ div (add (int $c.startup.seconds) 1) 2 }}
    readinessProbe:
      grpc: {port: {{ $probed }}, service: {{ $c.health }}}
      periodSeconds: 5
      timeoutSeconds: 2
    livenessProbe:
      grpc: {port: {{ $probed }}, service: liveness}
      periodSeconds: 15
      timeoutSeconds: 5
      failureThreshold: 4
    {{- if and (include "marginal.podSleeps" .) (gt (int $c.preStopSeconds) 0) }}
    lifecycle:
      preStop: {sleep: {seconds: {{ $c.preStopSeconds }}}}
    {{- end }}
    resources: {{ toJson $c.resources }}
    volumeMounts:
      - {name: tmp, mountPath: /tmp}
      {{- if $tls }}
      - {name: tls, mountPath: /etc/marginal/tls, readOnly: true}
      {{- end }}
      {{- if $c.isRouter }}
      - {name: settings, mountPath: /etc/marginal/settings, readOnly: true}
      - {name: journal, mountPath: /var/lib/marginal}
      {{- if include "marginal.hasKeys" $root }}
      - {name: keys, mountPath: /etc/marginal/keys, readOnly: true}
      {{- end }}
      {{- if and (ne $v.valkey.kind "none") $v.valkey.passwordSecret.name }}
      - {name: valkey, mountPath: /etc/marginal/valkey, readOnly: true}
      {{- end }}
      {{- if and (ne $v.valkey.kind "none") $v.valkey.caSecret.name }}
      - {name: valkey-ca, mountPath: /etc/marginal/valkey-ca, readOnly: true}
      {{- end }}
      {{- else if eq $c.engine.kind "external" }}
      {{- if $c.engine.external.apiKeySecret.name }}
      - {name: engine-key, mountPath: /etc/marginal/engine-key, readOnly: true}
      {{- end }}
      {{- if $c.engine.external.caSecret.name }}
      - {name: engine-ca, mountPath: /etc/marginal/engine-ca, readOnly: true}
      {{- end }}
      {{- else if and $c.hasModels (not $sidecar) }}
      - {name: models, mountPath: /models}
      {{- end }}
      {{- with $c.extraVolumeMounts }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
  {{- range $c.extraContainers }}
  - {{ toJson . }}
  {{- end }}
volumes:
  - name: tmp
    emptyDir: {sizeLimit: 256Mi}
  {{- if $tls }}
  {{- include "marginal.secretVolume" (dict "name" "tls" "secret" $tls) | nindent 2 }}
  {{- end }}
  {{- if $c.isRouter }}
  - name: settings
    configMap: {name: {{ $c.fullname }}-settings}
  {{- if not $c.stateful }}
  - name: journal
    emptyDir: {sizeLimit: {{ $c.journal.size }}}
  {{- end }}
  {{- with $v.access.keysSecret.name }}
  {{- include "marginal.secretVolume" (dict "name" "keys" "secret" .) | nindent 2 }}
  {{- end }}
  {{- if and (ne $v.valkey.kind "none") $v.valkey.passwordSecret.name }}
  {{- include "marginal.secretVolume" (dict "name" "valkey" "secret" $v.valkey.passwordSecret.name) | nindent 2 }}
  {{- end }}
  {{- if and (ne $v.valkey.kind "none") $v.valkey.caSecret.name }}
  {{- include "marginal.secretVolume" (dict "name" "valkey-ca" "secret" $v.valkey.caSecret.name) | nindent 2 }}
  {{- end }}
  {{- else }}
  {{- if eq $c.engine.kind "external" }}
  {{- with $c.engine.external.apiKeySecret.name }}
  {{- include "marginal.secretVolume" (dict "name" "engine-key" "secret" .) | nindent 2 }}
  {{- end }}
  {{- with $c.engine.external.caSecret.name }}
  {{- include "marginal.secretVolume" (dict "name" "engine-ca" "secret" .) | nindent 2 }}
  {{- end }}
  {{- end }}
  {{- if $c.hasModels }}
  - name: models
    {{- if eq $c.modelCache.kind "claim" }}
    persistentVolumeClaim: {claimName: {{ $c.modelCache.claimName | quote }}}
    {{- else if $c.modelCache.sizeLimit }}
    emptyDir: {sizeLimit: {{ $c.modelCache.sizeLimit }}}
    {{- else }}
    emptyDir: {}
    {{- end }}
  {{- end }}
  {{- if $sidecar }}
  - name: engine-tmp
    emptyDir: {sizeLimit: 8Gi}
  - name: shm
    emptyDir: {medium: Memory, sizeLimit: {{ $c.engine.sidecar.shmSize }}}
  {{- end }}
  {{- end }}
  {{- with $c.extraVolumes }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{- define "marginal.secretVolume" -}}
- name: {{ .name }}
  secret: {secretName: {{ .secret | quote }}, defaultMode: 0440}
{{- end -}}

{{/* An engine beside its program: it is up before the program starts, and ends after the program's last stream. */}}
{{- define "marginal.engine" -}}
{{- $s := .c.engine.sidecar -}}
- name: engine
  restartPolicy: Always
  image: {{ $s.image | quote }}
  imagePullPolicy: {{ $s.pullPolicy | default .root.Values.image.pullPolicy }}
  {{- with $s.command }}
  command: {{ toJson . }}
  {{- end }}
  {{- with $s.args }}
  args: {{ toJson . }}
  {{- end }}
  securityContext: {{ include "marginal.withoutNulls" (mergeOverwrite (deepCopy .c.securityContext) (deepCopy $s.securityContext)) }}
  env:
    {{- include "marginal.sidecarEnvironment" .c | nindent 4 }}
    {{- with $s.env }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  ports:
    - {name: engine, containerPort: {{ int $s.port }}}
  startupProbe:
    httpGet: {path: {{ $s.healthPath }}, port: engine}
    periodSeconds: 10
    timeoutSeconds: 5
    failureThreshold: {{ div (add (int $s.startupSeconds) 9) 10 }}
  readinessProbe:
    httpGet: {path: {{ $s.healthPath }}, port: engine}
    periodSeconds: 10
    timeoutSeconds: 5
  livenessProbe:
    httpGet: {path: {{ $s.healthPath }}, port: engine}
    periodSeconds: 30
    timeoutSeconds: 10
    failureThreshold: 4
  resources: {{ toJson $s.resources }}
  volumeMounts:
    - {name: engine-tmp, mountPath: /tmp}
    - {name: shm, mountPath: /dev/shm}
    - {name: models, mountPath: /models}
    {{- range $s.extraVolumeMounts }}
    - {{ toJson . }}
    {{- end }}
{{- end -}}
