{{/* The objects of one stage. All of these take root, component, which is its name, and stage, its entry of "weir.stages". */}}
{{- define "weir.stage" -}}
{{- range list "weir.serviceAccount" "weir.stageDeployment" "weir.stageService" "weir.stageAutoscaler" "weir.podDisruptionBudget" "weir.stageNetworkPolicy" }}
---
{{ include . $ }}
{{- end }}
{{- end }}

{{- define "weir.stageDeployment" -}}
{{- $values := index .root.Values .component }}
{{- $metricsPort := ternary 0 8081 (not (empty (include "weir.pushes" .root))) }}
apiVersion: apps/v1
kind: Deployment
metadata:
  {{- include "weir.metadata" (merge (dict "annotations" $values.annotations) .) | nindent 2 }}
spec:
  {{- if not (dig "autoscaling" "enabled" false $values) }}
  replicas: {{ $values.replicas }}
  {{- end }}
  strategy:
    type: RollingUpdate
    rollingUpdate:
      maxUnavailable: 0
      maxSurge: 1
  selector:
    matchLabels:
      {{- include "weir.selectorLabels" . | nindent 6 }}
  template:
    metadata:
      {{- include "weir.podMetadata" (merge (dict "metricsPort" $metricsPort "checksums" (include "weir.natsChecksums" . | fromYaml)) .) | trim | nindent 6 }}
    spec:
      {{- include "weir.pod" (merge (dict "spec" (include "weir.stagePod" .)) .) | nindent 6 }}
{{- end }}

{{/* The spec of its pods. */}}
{{- define "weir.stagePod" -}}
{{- $values := index .root.Values .component }}
serviceAccountName: {{ include "weir.fullname" .root }}-{{ .component }}
automountServiceAccountToken: {{ eq .stage.calls "apiServer" }}
enableServiceLinks: false
{{- if $values.drainTimeout }}
# The pause, the drain, and 10 s for what comes after.
terminationGracePeriodSeconds: {{ add ($values.preStopSleepSeconds | default 0) (include "weir.seconds" $values.drainTimeout | int) 10 }}
{{- else }}
terminationGracePeriodSeconds: 30
{{- end }}
securityContext:
  {{- include "weir.nonroot" . | nindent 2 }}
{{- include "weir.scheduling" . | trim | nindent 0 }}
{{- with $values.initContainers }}
initContainers:
{{- toYaml . | nindent 0 }}
{{- end }}
containers:
- name: {{ .component }}
  image: {{ include "weir.image" . }}
  imagePullPolicy: {{ .root.Values.image.pullPolicy }}
  env:
  {{- if .stage.service }}
  - name: WEIR_LISTEN
    value: ":8080"
  {{- end }}
  - name: WEIR_HEALTH_LISTEN
    value: ":8081"
  {{- with $values.drainTimeout }}
  - name: WEIR_DRAIN_TIMEOUT
    value: {{ . | quote }}
  {{- end }}
  {{- with .stage.env }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- include "weir.env" . | trim | nindent 2 }}
  ports:
  {{- if .stage.service }}
  - name: http
    containerPort: 8080
  {{- end }}
  - name: health
    containerPort: 8081
  {{- if .stage.webhook }}
  - name: webhook
    containerPort: 9443
  {{- end }}
  startupProbe:
  {{- if .stage.startupProbe }}
    {{- toYaml .stage.startupProbe | nindent 4 }}
  {{- else }}
    httpGet: {path: /healthz, port: health}
    periodSeconds: 1
    failureThreshold: 60
  {{- end }}
  livenessProbe:
    httpGet: {path: /healthz, port: health}
    periodSeconds: 10
    timeoutSeconds: 3
    failureThreshold: 3
  readinessProbe:
  {{- if .stage.readinessProbe }}
    {{- toYaml .stage.readinessProbe | nindent 4 }}
  {{- else }}
    httpGet: {path: /readyz, port: health}
    periodSeconds: 5
    timeoutSeconds: 3
    failureThreshold: 2
  {{- end }}
  {{- with $values.preStopSleepSeconds }}
  lifecycle:
    preStop:
      sleep:
        seconds: {{ . }}
  {{- end }}
  resources:
    {{- toYaml ($values.resources | default dict) | nindent 4 }}
  securityContext:
    {{- include "weir.containerSecurityContext" . | nindent 4 }}
  {{- include "weir.mounts" . | trim | nindent 2 }}
{{- with $values.extraContainers }}
{{- toYaml . | nindent 0 }}
{{- end }}
{{- include "weir.volumes" . | trim | nindent 0 }}
{{- end }}

{{- define "weir.stageService" -}}
{{- with .stage.service }}
apiVersion: v1
kind: Service
metadata:
  {{- include "weir.metadata" (merge (dict "annotations" .annotations) $) | nindent 2 }}
spec:
  {{- with .type }}
  type: {{ . }}
  {{- end }}
  {{- with .loadBalancerClass }}
  loadBalancerClass: {{ . | quote }}
  {{- end }}
  {{- with .loadBalancerSourceRanges }}
  loadBalancerSourceRanges: {{ toJson . }}
  {{- end }}
  {{- with .externalTrafficPolicy }}
  externalTrafficPolicy: {{ . }}
  {{- end }}
  selector:
    {{- include "weir.selectorLabels" $ | nindent 4 }}
  ports:
  - name: http
    port: {{ .port }}
    targetPort: http
    {{- with .nodePort }}
    nodePort: {{ . }}
    {{- end }}
    appProtocol: http
{{- end }}
{{- if .stage.admin }}
---
# Of probes, and what else is not for clients: within the cluster only.
apiVersion: v1
kind: Service
metadata:
  {{- include "weir.metadata" (merge (dict "name" (printf "%s-%s-admin" (include "weir.fullname" .root) .component)) .) | nindent 2 }}
spec:
  type: ClusterIP
  selector:
    {{- include "weir.selectorLabels" . | nindent 4 }}
  ports:
  - name: health
    port: 8081
    targetPort: health
    appProtocol: http
{{- end }}
{{- end }}

{{- define "weir.stageAutoscaler" -}}
{{- with (index .root.Values .component).autoscaling }}
{{- if .enabled }}
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  {{- include "weir.metadata" $ | nindent 2 }}
spec:
  scaleTargetRef:
    apiVersion: apps/v1
    kind: Deployment
    name: {{ include "weir.fullname" $.root }}-{{ $.component }}
  minReplicas: {{ .minReplicas }}
  maxReplicas: {{ .maxReplicas }}
  metrics:
  - type: Resource
    resource:
      name: cpu
      target:
        type: Utilization
        averageUtilization: {{ .targetCPUUtilizationPercentage }}
  {{- with .behavior }}
  behavior:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* The kubelet, and so probes and port-forwards, may always reach a pod of its node. */}}
{{- define "weir.stageNetworkPolicy" -}}
{{- $policy := .root.Values.networkPolicy }}
{{- if $policy.enabled }}
{{- $restricted := or (eq .stage.calls "functions") (and (not .stage.calls) .root.Values.nats.enabled) }}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  {{- include "weir.metadata" . | nindent 2 }}
spec:
  podSelector:
    matchLabels:
      {{- include "weir.selectorLabels" . | nindent 6 }}
  policyTypes: [Ingress{{ if $restricted }}, Egress{{ end }}]
  {{- if $restricted }}
  egress:
  {{- if .stage.calls }}
  # Functions are anywhere, so egress is open but for what no function is.
  {{- include "weir.functionEgress" $policy | nindent 2 }}
  {{- else }}
  - ports:
    - {protocol: TCP, port: 4222}
    to:
    - {{ include "weir.peer" (dict "root" .root "component" "nats") }}
  {{- include "weir.dnsEgress" $policy | nindent 2 }}
  {{- end }}
  {{- with include "weir.otlpEgress" .root }}
  {{- . | trim | nindent 2 }}
  {{- end }}
  {{- end }}
  ingress:
  {{- if .stage.service }}
  - ports:
    - {protocol: TCP, port: 8080}
    {{- with .stage.from }}
    from:
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- end }}
  {{- if .stage.webhook }}
  - ports:
    - {protocol: TCP, port: 9443} # the API server's, and where that is differs by cluster
  {{- end }}
  - ports:
    - {protocol: TCP, port: 8081} # metrics, probes
    {{- with $policy.metricsFrom }}
    from:
    {{- toYaml . | nindent 4 }}
    {{- if $.stage.admin }}
    - {{ include "weir.peer" (dict "root" $.root "component" "test") }}
    {{- end }}
    {{- end }}
{{- end }}
{{- end }}
