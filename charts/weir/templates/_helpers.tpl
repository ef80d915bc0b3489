{{/*
Name of everything that the release has. Short enough for "-nats-headless" and a pod's hash behind it; a longer one ends in a
hash, or two releases whose names begin alike would have one.
*/}}
{{- define "weir.fullname" -}}
{{- $name := .Values.fullnameOverride }}
{{- if not $name }}
{{- $name = ternary .Release.Name (printf "%s-weir" .Release.Name) (contains "weir" .Release.Name) }}
{{- end }}
{{- if gt (len $name) 40 }}
{{- $name = printf "%s-%s" (trunc 31 $name | trimSuffix "-") (sha256sum $name | trunc 8) }}
{{- end }}
{{- $name }}
{{- end }}

{{/* Labels by which a component's pods are selected: they must never change. Takes root and component. */}}
{{- define "weir.selectorLabels" -}}
app.kubernetes.io/name: weir
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
{{- /* No Service of one NATS may have pods of another: the former one's are still ending when the new one's come. */}}
app.kubernetes.io/component: {{ .component }}{{ if eq .component "nats" }}{{ .root.Values.nats.suffix }}{{ end }}
{{- end }}

{{/* Name of NATS' StatefulSet, Service and ConfigMap. Its credentials have none: they are those of each NATS of the release. */}}
{{- define "weir.natsName" -}}
{{- include "weir.fullname" . }}-nats{{ .Values.nats.suffix }}
{{- end }}

{{/* The volume claim that a former NATS is moved from; empty if none is. */}}
{{- define "weir.moveClaim" -}}
{{- dig "claim" "" (.Values.nats.moveFrom | default dict) }}
{{- end }}

{{- define "weir.labels" -}}
{{ include "weir.selectorLabels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service | quote }}
app.kubernetes.io/part-of: weir
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end }}

{{/* metadata of an object of a component. Takes root, component and optionally name and annotations. */}}
{{- define "weir.metadata" -}}
name: {{ .name | default (printf "%s-%s" (include "weir.fullname" .root) .component) | quote }}
namespace: {{ .root.Release.Namespace | quote }}
labels:
  {{- include "weir.labels" . | nindent 2 }}
{{- with .annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* metadata of a pod. Takes root, component, checksums, a map of annotations, and metricsPort, none (or 0) if nobody is to read it. */}}
{{- define "weir.podMetadata" -}}
{{- $values := index .root.Values .component }}
labels:
  {{- include "weir.selectorLabels" . | nindent 2 }}
  app.kubernetes.io/part-of: weir
  {{- if not (has .component (list "nats" "pgbouncer")) }}
  {{- /* Not at the others: a new version of the chart alone is no reason to restart them. */}}
  app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
  {{- end }}
  {{- with $values.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- $scrape := dict }}
{{- if and .root.Values.scrapeAnnotations.enabled .metricsPort }}
{{- $scrape = dict "prometheus.io/scrape" "true" "prometheus.io/port" (toString .metricsPort) "prometheus.io/path" "/metrics" }}
{{- end }}
{{- with merge (dict) ($values.podAnnotations | default dict) (.checksums | default dict) $scrape }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/*
The image of a component, in quotes. Takes root, component, and for another image of it values, which have image and imageDigest.
A digest takes the place of a tag, and of a digest that is in image.
*/}}
{{- define "weir.image" -}}
{{- $values := .values | default (index .root.Values .component) }}
{{- $image := $values.image | default (printf "%s/%s:%s" (trimSuffix "/" .root.Values.image.registry) .component (.root.Values.image.tag | default .root.Chart.AppVersion)) }}
{{- with $values.imageDigest }}
{{- $image = printf "%s@%s" (regexReplaceAll "(:[^/:@]+)?(@.*)?$" $image "") . }}
{{- end }}
{{- $image | quote }}
{{- end }}

{{- define "weir.imagePullSecrets" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
{{- range . }}
- name: {{ . | quote }}
{{- end }}
{{- end }}
{{- end }}

{{/* What a component's values say of where its pods may run, but for affinity and spread, and who pulls their images. */}}
{{- define "weir.placement" -}}
{{- $values := index .root.Values .component }}
{{- include "weir.imagePullSecrets" .root }}
{{- with $values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with $values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations:
{{- toYaml . | nindent 0 }}
{{- end }}
{{- end }}

{{/* Where pods may run, and who pulls their images. */}}
{{- define "weir.scheduling" -}}
{{- $values := index .root.Values .component }}
{{- $labels := include "weir.selectorLabels" . | fromYaml }}
{{- include "weir.placement" . }}
{{- $affinity := $values.affinity | default dict }}
{{- if eq .component "nats" }}
{{- $term := dict "topologyKey" "kubernetes.io/hostname" "labelSelector" (dict "matchLabels" $labels) }}
{{- if eq $values.antiAffinity "preferred" }}
{{- $affinity = merge (dict) $affinity (dict "podAntiAffinity" (dict "preferredDuringSchedulingIgnoredDuringExecution" (list (dict "weight" 100 "podAffinityTerm" $term)))) }}
{{- else if eq $values.antiAffinity "required" }}
{{- $affinity = merge (dict) $affinity (dict "podAntiAffinity" (dict "requiredDuringSchedulingIgnoredDuringExecution" (list $term))) }}
{{- end }}
{{- end }}
{{- with $affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.topologySpreadConstraints }}
topologySpreadConstraints:
{{- range . }}
{{- $defaults := dict "labelSelector" (dict "matchLabels" $labels) }}
{{- if ne $.component "nats" }}
{{- /* Pods of the former version don't count: else a rolling update leaves the new ones lopsided. */}}
{{- $_ := set $defaults "matchLabelKeys" (list "pod-template-hash") }}
{{- end }}
- {{ ternary . (merge (dict) . $defaults) (hasKey . "labelSelector") | toYaml | nindent 2 | trim }}
{{- end }}
{{- end }}
{{- end }}

{{- define "weir.podSecurityContext" -}}
{{- merge (dict "runAsNonRoot" true "seccompProfile" (dict "type" "RuntimeDefault")) (. | default dict) | toYaml }}
{{- end }}

{{/* Of Weir's own images: user nonroot. fsGroup lets it read the mounted Secrets. */}}
{{- define "weir.nonroot" -}}
{{- include "weir.podSecurityContext" (dict "runAsUser" 65532 "runAsGroup" 65532 "fsGroup" 65532) }}
{{- end }}

{{- define "weir.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
{{- end }}

{{/*
What an exporter's container has beside its image and arguments. It has no probe of readiness or start: the pod must serve
whether it is read or not.
*/}}
{{- define "weir.exporterContainer" -}}
ports:
- name: exporter
  containerPort: {{ .port }}
livenessProbe:
  tcpSocket: {port: exporter}
  periodSeconds: 30
  timeoutSeconds: 3
  failureThreshold: 3
resources:
  {{- toYaml (.resources | default dict) | nindent 2 }}
securityContext:
  {{- include "weir.containerSecurityContext" . | nindent 2 }}
{{- end }}

{{/* A quantity as a text: of a number of bytes, which YAML makes a floating point number, its digits. */}}
{{- define "weir.quantity" -}}
{{- if kindIs "float64" . }}{{ int64 . }}{{ else }}{{ . }}{{ end }}
{{- end }}

{{/* A Kubernetes quantity of bytes, such as 1.5Gi, as a number: rounded up, as Kubernetes does. */}}
{{- define "weir.bytes" -}}
{{- $units := dict "" 1 "k" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 }}
{{- /* The API server writes a fraction of a byte so. */}}
{{- $_ := set $units "m" 0.001 }}
{{- $text := include "weir.quantity" . }}
{{- $unit := regexFind "[A-Za-z]*$" $text }}
{{- if not (hasKey $units $unit) }}
{{- fail (printf "%q is no quantity of bytes: write a number with k, M, G, T, Ki, Mi, Gi or Ti" $text) }}
{{- end }}
{{- mulf (regexFind "^[0-9]+([.][0-9]+)?" $text) (get $units $unit) | ceil | int64 }}
{{- end }}

{{/* The collector works harder before the kernel kills. One of extraEnv goes before it. */}}
{{- define "weir.goMemoryLimit" -}}
{{- $own := false }}
{{- range .extraEnv }}{{ if eq .name "GOMEMLIMIT" }}{{ $own = true }}{{ end }}{{ end }}
{{- with ternary "" ((.resources | default dict).limits | default dict).memory $own }}
- name: GOMEMLIMIT
  value: {{ div (mul (include "weir.bytes" . | int64) 85) 100 | toString | quote }}
{{- end }}
{{- end }}

{{/* Seconds of a duration such as 35s; values.schema.json holds its form. */}}
{{- define "weir.seconds" -}}
{{- trimSuffix "s" . }}
{{- end }}

{{/* Replicas of Weir's streams. */}}
{{- define "weir.streamReplicas" -}}
{{- .Values.controller.streamReplicas | default (ternary .Values.nats.replicas 1 .Values.nats.enabled) }}
{{- end }}

{{- define "weir.natsURL" -}}
{{- if .Values.nats.enabled }}
{{- printf "%s://%s.%s.svc:4222" (ternary "tls" "nats" .Values.nats.tls.enabled) (include "weir.natsName" .) .Release.Namespace }}
{{- else }}
{{- .Values.nats.url }}
{{- end }}
{{- end }}

{{- define "weir.natsAuthSecret" -}}
{{- .Values.nats.auth.existingSecret | default (printf "%s-nats-auth" (include "weir.fullname" .)) }}
{{- end }}

{{- define "weir.natsTLSSecret" -}}
{{- .Values.nats.tls.existingSecret | default (printf "%s-nats-tls" (include "weir.fullname" .)) }}
{{- end }}

{{/* Not empty when Weir's services check NATS by a CA of ours: always, but for a NATS of one's own with a public one. */}}
{{- define "weir.natsHasCA" -}}
{{- if and .Values.nats.tls.enabled (or .Values.nats.enabled .Values.nats.tls.existingSecret) }}true{{ end }}
{{- end }}

{{/* Environment that all stages have. Takes root, stage and component, which is the NATS user as well. */}}
{{- define "weir.env" -}}
{{- $values := index .root.Values .component }}
{{- $folder := "/var/run/secrets/weir/nats" }}
- name: WEIR_INSTANCE
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: WEIR_LOG_LEVEL
  value: {{ .root.Values.log.level | quote }}
- name: WEIR_LOG_LEVEL_FILE
  value: /etc/weir/log/level
- name: WEIR_LOG_FORMAT
  value: {{ .root.Values.log.format | quote }}
- name: WEIR_NATS_URL
  value: {{ include "weir.natsURL" .root | quote }}
{{- if .root.Values.nats.auth.enabled }}
- name: WEIR_NATS_USER
  value: {{ index .root.Values.nats.auth.usernames .component | quote }}
- name: WEIR_NATS_PASSWORD_FILE
  value: {{ $folder }}/password
{{- end }}
{{- if include "weir.natsHasCA" .root }}
- name: WEIR_NATS_CA_FILE
  value: {{ $folder }}/ca.crt
{{- end }}
{{- if include "weir.s3" . }}
{{- with .root.Values.objects.s3 }}
- name: WEIR_S3_ENDPOINT
  value: {{ .endpoint | quote }}
- name: WEIR_S3_BUCKET
  value: {{ .bucket | quote }}
{{- with .publicEndpoint }}
- name: WEIR_S3_PUBLIC_ENDPOINT
  value: {{ . | quote }}
{{- end }}
{{- with .region }}
- name: WEIR_S3_REGION
  value: {{ . | quote }}
{{- end }}
{{- with .prefix }}
- name: WEIR_S3_PREFIX
  value: {{ . | quote }}
{{- end }}
{{- if .existingSecret }}
- name: WEIR_S3_CREDENTIALS_FILE
  value: /var/run/secrets/weir/s3/credentials
{{- end }}
{{- if .ownCA }}
- name: WEIR_S3_CA_FILE
  value: /var/run/secrets/weir/s3/ca.crt
{{- end }}
{{- end }}
{{- end }}
{{- include "weir.telemetryEnv" . }}
{{- include "weir.goMemoryLimit" $values }}
{{- with $values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Not empty for a stage that keeps objects in S3. */}}
{{- define "weir.s3" -}}
{{- if and .root.Values.objects.s3.endpoint .stage.objects }}true{{ end }}
{{- end }}

{{/* Not empty for one whose credentials for it are in a Secret. */}}
{{- define "weir.s3Secret" -}}
{{- if and (include "weir.s3" .) .root.Values.objects.s3.existingSecret }}true{{ end }}
{{- end }}

{{/* The credentials, and nothing else of their Secrets. No subPath: a rotated Secret, another level, reaches the file. */}}
{{- define "weir.volumes" -}}
{{- $values := index .root.Values .component }}
{{- $nats := or .root.Values.nats.auth.enabled (include "weir.natsHasCA" .root) }}
volumes:
{{- if $nats }}
- name: nats
  projected:
    defaultMode: 0440
    sources:
    {{- if .root.Values.nats.auth.enabled }}
    - secret:
        name: {{ include "weir.natsAuthSecret" .root | quote }}
        items:
        - {key: {{ .component }}-password, path: password}
    {{- end }}
    {{- if include "weir.natsHasCA" .root }}
    - secret:
        name: {{ include "weir.natsTLSSecret" .root | quote }}
        items:
        - {key: ca.crt, path: ca.crt}
    {{- end }}
{{- end }}
{{- if include "weir.s3Secret" . }}
- name: s3
  secret:
    secretName: {{ .root.Values.objects.s3.existingSecret | quote }}
    defaultMode: 0440
    items:
    - {key: credentials, path: credentials}
    {{- if .root.Values.objects.s3.ownCA }}
    - {key: ca.crt, path: ca.crt}
    {{- end }}
{{- end }}
{{- if .stage.webhook }}
- name: webhook
  secret:
    secretName: {{ include "weir.webhookName" .root }}
    defaultMode: 0440
{{- end }}
- name: log
  configMap:
    name: {{ include "weir.logLevels" .root }}
    items:
    - {key: {{ .component }}, path: level}
{{- with $values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "weir.mounts" -}}
{{- $nats := or .root.Values.nats.auth.enabled (include "weir.natsHasCA" .root) }}
volumeMounts:
{{- if $nats }}
- name: nats
  mountPath: /var/run/secrets/weir/nats
  readOnly: true
{{- end }}
{{- if include "weir.s3Secret" . }}
- name: s3
  mountPath: /var/run/secrets/weir/s3
  readOnly: true
{{- end }}
{{- if .stage.webhook }}
- name: webhook
  mountPath: /var/run/secrets/weir/webhook
  readOnly: true
{{- end }}
- name: log
  mountPath: /etc/weir/log
  readOnly: true
{{- with (index .root.Values .component).extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "weir.webhookName" -}}
{{- include "weir.fullname" . }}-webhook
{{- end }}

{{- define "weir.logLevels" -}}
{{- include "weir.fullname" . }}-log-levels
{{- end }}

{{/* Annotations that roll a stage's pods when its credentials change. */}}
{{- define "weir.natsChecksums" -}}
{{- $secrets := include "weir.natsSecrets" .root | fromYaml }}
{{- if .root.Values.nats.auth.enabled }}
checksum/nats-password: {{ get $secrets.auth (printf "%s-password" .component) | default "" | sha256sum }}
{{- end }}
{{- if include "weir.natsHasCA" .root }}
checksum/nats-ca: {{ get $secrets.tls "ca.crt" | default "" | sha256sum }}
{{- end }}
{{- end }}

{{/* A PodDisruptionBudget. Takes root and component. */}}
{{- define "weir.podDisruptionBudget" -}}
{{- $values := index .root.Values .component }}
{{- if $values.podDisruptionBudget.enabled }}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  {{- include "weir.metadata" . | nindent 2 }}
spec:
  maxUnavailable: {{ toJson $values.podDisruptionBudget.maxUnavailable }}
  # A pod that isn't ready anyway must not block the drain of its node.
  unhealthyPodEvictionPolicy: {{ ternary "IfHealthyBudget" "AlwaysAllow" (eq .component "nats") }}
  selector:
    matchLabels:
      {{- include "weir.selectorLabels" . | nindent 6 }}
{{- end }}
{{- end }}

{{/* A ServiceAccount without a token: a pod that needs one asks for it itself. A cloud's identity goes by its annotations. */}}
{{- define "weir.serviceAccount" -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  {{- include "weir.metadata" (merge (dict "annotations" (dig "serviceAccount" "annotations" dict (index .root.Values .component | default dict))) .) | nindent 2 }}
automountServiceAccountToken: false
{{- end }}

{{/*
A Role and its binding to a ServiceAccount of the release, in a namespace; a ClusterRole and its binding where namespace is empty.
Takes root, component, name, namespace, account, rules, which is their text, and optionally roleAnnotations and bindingAnnotations.
*/}}
{{- define "weir.grant" -}}
{{- $kind := ternary "ClusterRole" "Role" (empty .namespace) }}
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ $kind }}
metadata:
  {{- include "weir.grantMetadata" (merge (dict "annotations" .roleAnnotations) .) | nindent 2 }}
rules:
{{ trim .rules }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ $kind }}Binding
metadata:
  {{- include "weir.grantMetadata" (merge (dict "annotations" .bindingAnnotations) .) | nindent 2 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: {{ $kind }}
  name: {{ .name }}
subjects:
- kind: ServiceAccount
  name: {{ .account }}
  namespace: {{ .root.Release.Namespace | quote }}
{{- end }}

{{- define "weir.grantMetadata" -}}
name: {{ .name }}
{{- with .namespace }}
namespace: {{ . | quote }}
{{- end }}
labels:
  {{- include "weir.labels" . | nindent 2 }}
{{- with .annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Egress of those who call functions, from .Values.networkPolicy. */}}
{{- define "weir.functionEgress" -}}
{{- $v4 := list }}{{- $v6 := list }}
{{- range .blockedCIDRs }}
{{- if contains ":" . }}{{ $v6 = append $v6 . }}{{ else }}{{ $v4 = append $v4 . }}{{ end }}
{{- end -}}
- to:
  - namespaceSelector: {} # pods: some network plugins don't take them for addresses
  - ipBlock: {cidr: 0.0.0.0/0, except: {{ toJson $v4 }}}
  - ipBlock: {cidr: "::/0", except: {{ toJson $v6 }}}
{{ include "weir.dnsEgress" . }}
{{- end }}

{{/* The rule of a NetworkPolicy's egress that lets names be looked up, from .Values.networkPolicy. */}}
{{- define "weir.dnsEgress" -}}
- ports:
  {{- range .dnsPorts }}
  - {protocol: UDP, port: {{ . }}}
  - {protocol: TCP, port: {{ . }}}
  {{- end }}
  {{- with .dnsTo }}
  to:
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{/* The pods of a component as a peer in a NetworkPolicy. Takes root and component. */}}
{{- define "weir.peer" -}}
{{- dict "podSelector" (dict "matchLabels" (include "weir.selectorLabels" . | fromYaml)) | toJson }}
{{- end }}
