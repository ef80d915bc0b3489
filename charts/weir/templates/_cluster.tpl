{{/*
Puts into .Values.inCluster the resources of Weir's four kinds that the cluster has: id, namespace, class, and by, the release that
serves it. They are looked up once a rendering. Without the definitions, which a first install brings along, lookup would be an
error, and so it is where the installer may not list: controller.lookUp says where not to look. "helm template" finds nothing.
*/}}
{{- define "weir.lookUp" }}
{{- if not (hasKey .Values "inCluster") }}
{{- $namespaces := list "" }}
{{- if eq .Values.controller.lookUp "none" }}
{{- $namespaces = list }}
{{- else if eq .Values.controller.lookUp "watched" }}
{{- $namespaces = .Values.controller.watchNamespaces | default $namespaces }}
{{- end }}
{{- $found := list }}
{{- range $kind := list "API" "Queue" "EventSourceMapping" "StateMachine" }}
{{- if $.Capabilities.APIVersions.Has (printf "weir.dev/v1alpha1/%s" $kind) }}
{{- range $namespaces }}
{{- range (lookup "weir.dev/v1alpha1" $kind . "").items }}
{{- $found = append $found (dict
      "id" (printf "%s %s/%s" $kind .metadata.namespace .metadata.name) "namespace" .metadata.namespace
      "class" (dig "spec" "class" "weir" .) "by" (dig "status" "observedBy" "" .)) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- $_ := set .Values "inCluster" $found }}
{{- end }}
{{- end }}

{{/* The class that this release serves up to now; empty if it isn't there. */}}
{{- define "weir.formerClass" -}}
{{- range lookup "apps/v1" "Deployment" .Release.Namespace (printf "%s-controller" (include "weir.fullname" .)) | dig "spec" "template" "spec" "containers" list }}
{{- range .env }}
{{- if eq .name "WEIR_CLASS" }}{{ .value }}{{ end }}
{{- end }}
{{- end }}
{{- end }}

{{/* A list in words, with no more than ten of its members. */}}
{{- define "weir.some" -}}
{{- join ", " (slice . 0 (min 10 (len .))) }}{{ if gt (len .) 10 }} and {{ sub (len .) 10 }} more{{ end }}
{{- end }}
