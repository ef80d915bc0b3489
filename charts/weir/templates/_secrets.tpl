{{/*
What is in the Secrets of NATS, base64-encoded as there: {auth: {...}, ca: {...}, tls: {...}, names: "..."}.

What the chart generated once is kept over upgrades by lookup. It is made once a rendering and remembered in .Values,
which all templates share: otherwise the checksums at the pods would be of other passwords than those in the Secret.
"helm template" and what builds on it (GitOps) finds nothing by lookup: there each rendering would bring new passwords,
so existingSecret is for them.
*/}}
{{- define "weir.natsSecrets" -}}
{{- if not (hasKey .Values "natsSecrets") }}
{{- $_ := set .Values "natsSecrets" (dict
      "auth" (include "weir.natsAuthData" . | fromYaml)
      "tls" dict "ca" dict "names" "") }}
{{- if include "weir.natsHasCA" . }}
{{- if or .Values.nats.tls.existingSecret .Values.nats.tls.certManager.issuerRef }}
{{- $_ := set .Values.natsSecrets "tls" ((lookup "v1" "Secret" .Release.Namespace (include "weir.natsTLSSecret" .)).data | default dict) }}
{{- else }}
{{- include "weir.natsGenerateTLS" . }}
{{- end }}
{{- end }}
{{- end }}
{{- toYaml .Values.natsSecrets }}
{{- end }}

{{- define "weir.natsAuthData" -}}
{{- $data := (lookup "v1" "Secret" .Release.Namespace (include "weir.natsAuthSecret" .)).data | default dict }}
{{- if .Values.nats.auth.existingSecret }}
{{- toYaml $data }}
{{- else }}
{{- range append (include "weir.natsUsers" . | fromJsonArray) "cluster" }}
{{- $key := printf "%s-password" . }}
{{- /* A letter first: it is a string wherever a configuration is parsed. */}}
{{ $key }}: {{ get $data $key | default (printf "p%s" (randAlphaNum 39) | b64enc) | quote }}
{{- end }}
{{- end }}
{{- end }}

{{/* Names under which NATS is reached: its Service, each replica, and a port-forward. */}}
{{- define "weir.natsNames" -}}
{{- $service := include "weir.natsName" . }}
{{- range list $service (printf "*.%s-headless" $service) (printf "%s-headless" $service) }}
- {{ . | quote }}
- {{ printf "%s.%s" . $.Release.Namespace | quote }}
- {{ printf "%s.%s.svc" . $.Release.Namespace | quote }}
- {{ printf "%s.%s.svc.cluster.local" . $.Release.Namespace | quote }}
{{- end }}
- localhost
{{- range .Values.nats.tls.extraNames }}
- {{ . | quote }}
{{- end }}
{{- end }}

{{/*
The certificate is signed anew, by the same CA, when the names in it change or its Secret was deleted; the CA is made
anew when its own Secret was deleted. The CA's key is mounted nowhere.
*/}}
{{- define "weir.natsGenerateTLS" -}}
{{- $names := include "weir.natsNames" . | fromYamlArray }}
{{- $hash := $names | toJson | sha256sum }}
{{- $days := int .Values.nats.tls.validDays }}
{{- $cn := printf "%s-nats" (include "weir.fullname" .) }}
{{- $oldCA := (lookup "v1" "Secret" .Release.Namespace (printf "%s-nats-ca" (include "weir.fullname" .))).data | default dict }}
{{- $old := lookup "v1" "Secret" .Release.Namespace (include "weir.natsTLSSecret" .) }}
{{- $ca := dict }}
{{- if and (hasKey $oldCA "tls.crt") (hasKey $oldCA "tls.key") }}
{{- $ca = buildCustomCert (get $oldCA "tls.crt") (get $oldCA "tls.key") }}
{{- else }}
{{- $ca = genCAWithKey (printf "%s-ca" $cn) $days (genPrivateKey "ecdsa") }}
{{- end }}
{{- $caData := dict "tls.crt" ($ca.Cert | b64enc) "tls.key" ($ca.Key | b64enc) }}
{{- $_ := set .Values.natsSecrets "ca" $caData }}
{{- $_ := set .Values.natsSecrets "names" $hash }}
{{- $data := ($old).data | default dict }}
{{- $metadata := ($old).metadata | default dict }}
{{- if and (hasKey $data "tls.crt") (hasKey $data "tls.key") (eq (get $data "ca.crt") (get $caData "tls.crt")) (eq (get ($metadata.annotations | default dict) "weir.dev/names") $hash) }}
{{- $_ := set .Values.natsSecrets "tls" (pick $data "tls.crt" "tls.key" "ca.crt") }}
{{- else }}
{{- $cert := genSignedCertWithKey $cn (list "127.0.0.1" "::1") $names $days $ca (genPrivateKey "ecdsa") }}
{{- $_ := set .Values.natsSecrets "tls" (dict "tls.crt" ($cert.Cert | b64enc) "tls.key" ($cert.Key | b64enc) "ca.crt" (get $caData "tls.crt")) }}
{{- end }}
{{- end }}
