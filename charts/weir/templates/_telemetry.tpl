{{/*
What each stage sends, and to whom, by OpenTelemetry's own variables. Takes root and component. POD_NAMESPACE and
WEIR_INSTANCE stand before what names them, or Kubernetes would not expand it.
*/}}
{{- define "weir.telemetryEnv" -}}
{{- $telemetry := .root.Values.telemetry }}
{{- with $telemetry.otlp }}
{{- if .endpoint }}
- name: POD_NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
{{- include "weir.otlpEnv" $.root }}
- name: OTEL_RESOURCE_ATTRIBUTES
  value: {{ include "weir.resourceAttributes" (dict "root" $.root "own" (list "k8s.namespace.name=$(POD_NAMESPACE)" "k8s.pod.name=$(WEIR_INSTANCE)" (printf "k8s.deployment.name=%s-%s" (include "weir.fullname" $.root) $.component))) | quote }}
- name: OTEL_METRICS_EXPORTER
  value: {{ ternary "otlp" "none" $telemetry.metrics.enabled }}
- name: OTEL_METRIC_EXPORT_INTERVAL # milliseconds
  value: {{ mul $telemetry.metrics.intervalSeconds 1000 | toString | quote }}
- name: OTEL_TRACES_EXPORTER
  value: {{ ternary "otlp" "none" $telemetry.traces.enabled }}
- name: OTEL_TRACES_SAMPLER
  value: {{ $telemetry.traces.sampler }}
{{- with $telemetry.traces.samplerArg }}
- name: OTEL_TRACES_SAMPLER_ARG
  value: {{ . | quote }}
{{- end }}
- name: OTEL_LOGS_EXPORTER
  value: {{ ternary "otlp" "none" $telemetry.logs.enabled }}
{{- end }}
{{- end }}
{{- end }}

{{/* Where telemetry is sent to. */}}
{{- define "weir.otlpEnv" }}
{{- with .Values.telemetry.otlp }}
- name: OTEL_EXPORTER_OTLP_ENDPOINT
  value: {{ .endpoint | quote }}
- name: OTEL_EXPORTER_OTLP_PROTOCOL
  value: {{ .protocol }}
{{- with .headersSecret }}
- name: OTEL_EXPORTER_OTLP_HEADERS
  valueFrom:
    secretKeyRef: {name: {{ . | quote }}, key: headers}
{{- end }}
{{- end }}
{{- end }}

{{/* Takes root and own, a list of KEY=VALUE, and adds those of the values. */}}
{{- define "weir.resourceAttributes" -}}
{{- $attributes := .own }}
{{- range $key, $value := .root.Values.telemetry.resourceAttributes }}
{{- $attributes = append $attributes (printf "%s=%s" $key $value) }}
{{- end }}
{{- join "," $attributes }}
{{- end }}

{{/* The rule of a NetworkPolicy's egress that lets telemetry out; empty if nothing is sent. */}}
{{- define "weir.otlpEgress" -}}
{{- with .Values.telemetry.otlp }}
{{- if .endpoint }}
- ports:
  - {protocol: TCP, port: {{ regexFind ":[0-9]+(/|$)" .endpoint | trimPrefix ":" | trimSuffix "/" }}}
  {{- with .to }}
  to:
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/*
Not empty if the stages push their metrics. Who pushes is not read besides, by no PodMonitor and no annotation: where both
reach one Prometheus each series is there twice, by the same job, and each sum over them is double.
*/}}
{{- define "weir.pushes" -}}
{{- if and .Values.telemetry.otlp.endpoint .Values.telemetry.metrics.enabled }}true{{ end }}
{{- end }}

{{/* Not empty if emf.extraEnv says where the collector of lines in embedded metric format pushes to. */}}
{{- define "weir.emfPushesElsewhere" -}}
{{- range .Values.emf.extraEnv }}
{{- if has .name (list "OTEL_EXPORTER_OTLP_ENDPOINT" "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT") }}true{{ end }}
{{- end }}
{{- end }}

{{/*
A PodMonitor. Takes root, component, which is in its name, port, a port's name, and components, whose pods it selects. job
is what the pages and rules of this chart go by; as service.name it is the same where metrics are pushed.
*/}}
{{- define "weir.podMonitor" -}}
apiVersion: monitoring.coreos.com/v1
kind: PodMonitor
metadata:
  {{- include "weir.metadata" . | nindent 2 }}
    {{- with .root.Values.serviceMonitor.labels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  selector:
    matchLabels:
      app.kubernetes.io/name: weir
      app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
    matchExpressions:
    - {key: app.kubernetes.io/component, operator: In, values: {{ toJson .components }}}
  namespaceSelector:
    matchNames: [{{ .root.Release.Namespace | quote }}]
  podMetricsEndpoints:
  - port: {{ .port }}
    path: /metrics
    interval: {{ .root.Values.serviceMonitor.interval }}
    relabelings:
    - sourceLabels: [__meta_kubernetes_pod_label_app_kubernetes_io_component]
      regex: (.+)
      targetLabel: job
      replacement: weir-$1
      action: replace
{{- end }}
