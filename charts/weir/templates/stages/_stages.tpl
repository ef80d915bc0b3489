{{/*
The stages: Weir's own services, and of each what is not as at the others. stages.yaml makes their objects of it, and
../nats their users. One more stage is one more entry here, a section of its name in values.yaml, and the rights of
its user in files/nats/NAME.conf: see CONTRIBUTING.md.

  name       of its image, its objects, its section in the values and its NATS user
  service    of what it serves to clients at its port 8080: port, and if need be the rest of gateway.service. Without it
             there is its admin port only, 8081, with probes and metrics, which all have
  from       who may connect to port 8080, as a NetworkPolicy has it; empty: all. The admin port is for networkPolicy.metricsFrom
  admin      a Service NAME-admin for port 8081, which "helm test" asks whether the stage is ready
  calls      functions: it may connect to anywhere but networkPolicy.blockedCIDRs. apiServer: to anywhere, for where the
             API server is differs by cluster, and with a token. Without it: to the chart's NATS alone
  objects    it has to do with the large results and inputs of jobs, and gets S3's credentials
  webhook    the API server connects to its port 9443
  env        besides what all have ("weir.env" and "weir.stageDeployment")
  startupProbe, readinessProbe     instead of those in "weir.stageDeployment"

From its section in the values come drainTimeout, preStopSleepSeconds and autoscaling, where it has them.
*/}}
{{- define "weir.stages" -}}
{{- $clients := .Values.networkPolicy.gatewayFrom | default list -}}
- name: gateway
  service: {{ toJson .Values.gateway.service }}
  {{- /* Functions report to it how their jobs go: who names its clients must not cut them off. */}}
  from: {{ ternary (concat $clients (.Values.networkPolicy.functionsFrom | default list)) list (not (empty $clients)) | toJson }}
  admin: true
  calls: functions
  objects: true
  env:
  - {name: WEIR_ACCESS_LOG, value: {{ .Values.log.access | quote }}}
  - {name: WEIR_COMPRESSION, value: {{ .Values.compression | quote }}}
  - {name: WEIR_REALTIME_URL, value: "http://{{ include "weir.fullname" . }}-realtime.{{ .Release.Namespace }}"}
  {{- if .Values.gateway.h2c }}
  - {name: WEIR_H2C, value: "on"}
  {{- end }}
  {{- with .Values.gateway.pathPrefix }}
  - {name: WEIR_PATH_PREFIX, value: {{ . | quote }}}
  {{- end }}
  - {name: WEIR_NATS_SYNC, value: {{ .Values.nats.syncInterval | quote }}}
  # A gateway takes part once it has a catalog and NATS, and stays in when NATS goes away: it answers 503 with a
  # Retry-After then, where a Service without endpoints would refuse the connection.
  {{- include "weir.probesOnceStarted" . | nindent 2 }}

- name: dispatcher
  calls: functions
  objects: true
  env:
  - {name: WEIR_CALLBACK_URL, value: "http://{{ include "weir.fullname" . }}-gateway.{{ .Release.Namespace }}:{{ .Values.gateway.service.port }}"}
  - {name: WEIR_COMPRESSION, value: {{ .Values.compression | quote }}}

- name: orchestrator
  service: {port: 80} # where mappings start executions
  from: [{{ include "weir.peer" (dict "root" . "component" "dispatcher") }}]
  admin: true # its API, for people: nobody else may connect to it but networkPolicy.metricsFrom
  calls: functions
  objects: true
  env:
  - {name: WEIR_EGRESS_ALLOW, value: {{ join "," .Values.orchestrator.egressAllow | quote }}}
  {{- if .Values.batch.enabled }}
  - {name: WEIR_BATCH, value: "on"}
  {{- end }}
  {{- with .Values.gateway.pathPrefix }}
  - {name: WEIR_PATH_PREFIX, value: {{ . | quote }}} # in the addresses of activities
  {{- end }}

- name: realtime
  service: {port: 80}
  {{- $peer := include "weir.peer" (dict "root" . "component" "gateway") | fromJson }}
  {{- $from := list $peer }}
  {{- if and .Values.route.enabled (eq .Values.route.listeners "realtime") }}
  {{- $from = ternary (append $clients $peer) list (not (empty $clients)) }}
  {{- end }}
  from: {{ toJson $from }}
  {{- with .Values.gateway.pathPrefix }}
  env:
  - {name: WEIR_PATH_PREFIX, value: {{ . | quote }}} # in the links of what it pushes
  {{- end }}

- name: controller
  calls: apiServer
  objects: true
  webhook: {{ .Values.controller.webhook.enabled }}
  {{- if .Values.controller.webhook.enabled }}
  # It begins with NATS, and reviews without it.
  {{- include "weir.probesOnceStarted" . | nindent 2 }}
  {{- end }}
  env:
  {{- if .Values.controller.webhook.enabled }}
  - {name: WEIR_WEBHOOK_LISTEN, value: ":9443"}
  {{- end }}
  - {name: WEIR_STREAM_REPLICAS, value: {{ include "weir.streamReplicas" . | quote }}}
  {{- with include "weir.moveClaim" . }}
  - {name: WEIR_AWAIT_MOVE, value: {{ . | quote }}}
  {{- end }}
  - {name: WEIR_EXECUTIONS_MAX_BYTES, value: {{ ternary (include "weir.quantity" .Values.orchestrator.maxBytes) "0" (gt (int .Values.orchestrator.replicas) 0) | quote }}}
  {{- if gt (int .Values.orchestrator.replicas) 0 }}
  - {name: WEIR_ORCHESTRATOR_URL, value: "http://{{ include "weir.fullname" . }}-orchestrator.{{ .Release.Namespace }}"}
  {{- end }}
  {{- if .Values.batch.enabled }}
  - {name: WEIR_BATCH, value: "on"}
  {{- end }}
  - {name: WEIR_NAMESPACES, value: {{ join "," .Values.controller.watchNamespaces | quote }}}
  - {name: WEIR_RELEASE, value: {{ printf "%s/%s" .Release.Namespace .Release.Name | quote }}}
  - {name: WEIR_CLASS, value: {{ .Values.controller.class | quote }}}
  - {name: WEIR_TAKE_OVER, value: {{ join "," .Values.controller.takeOver | quote }}}
  {{- with .Values.controller.allowedRoutes }}
  - {name: WEIR_ALLOWED_ROUTES, value: {{ toJson . | quote }}}
  {{- end }}
{{- end }}

{{/* Probes of a stage that needs NATS to begin, and goes on without it. A pod that ends leaves the endpoints by itself. */}}
{{- define "weir.probesOnceStarted" -}}
startupProbe:
  httpGet: {path: /readyz, port: health}
  periodSeconds: 1
  timeoutSeconds: 2
  failureThreshold: {{ add .Values.nats.startupSeconds 120 }}
readinessProbe:
  httpGet: {path: /healthz, port: health}
  periodSeconds: 2
  timeoutSeconds: 2
  failureThreshold: 2
{{- end }}

{{/* The stages' names as a JSON array. */}}
{{- define "weir.stageNames" -}}
{{- $names := list }}
{{- range include "weir.stages" . | fromYamlArray }}
{{- $names = append $names .name }}
{{- end }}
{{- toJson $names }}
{{- end }}
