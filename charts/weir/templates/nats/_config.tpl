{{- /*
The users of NATS as a JSON array: the stages, and people (weir dlq). nats.conf has them in this order, and another one
would restart NATS for nothing.

The rights of each are in files/nats/USER.conf. Its answers and deliveries come under an inbox prefix of its own. A
stream's name is one token of a subject, which can't be matched by its beginning: hence the wildcards, and what they must
not reach is denied. internal/app's TestServicesNeedNoMoreRights runs the services with the same lists.
*/}}
{{- define "weir.natsUsers" -}}
{{- concat (list "controller" "operator") (include "weir.stageNames" . | fromJsonArray) | uniq | toJson }}
{{- end }}

{{/* It holds no password: NATS takes them from its environment. */}}
{{- define "weir.natsConfig" -}}
{{- $nats := .Values.nats -}}
port: 4222
http_port: 8222
pid_file: "/run/nats/nats.pid"
lame_duck_duration: "{{ $nats.lameDuck.durationSeconds }}s"
lame_duck_grace_period: "{{ $nats.lameDuck.gracePeriodSeconds }}s"

jetstream {
  store_dir: "/data"
  max_file_store: {{ if $nats.jetstream.maxFileStore }}{{ include "weir.bytes" $nats.jetstream.maxFileStore }}{{ else }}{{ div (mul (include "weir.bytes" $nats.persistence.size | int64) 9) 10 }}{{ end }}
  max_memory_store: {{ include "weir.bytes" $nats.jetstream.maxMemoryStore }}
  sync_interval: {{ $nats.syncInterval | quote }}
}
{{- if $nats.tls.enabled }}

tls {
  cert_file: "/etc/nats/tls/tls.crt"
  key_file: "/etc/nats/tls/tls.key"
  ca_file: "/etc/nats/tls/ca.crt"
  timeout: 5
}
{{- end }}
{{- if $nats.auth.enabled }}

authorization {
  timeout: 5
  users: [
    {{- range include "weir.natsUsers" . | fromJsonArray }}
    {
      user: "{{ index $nats.auth.usernames . }}", password: $WEIR_PASSWORD_{{ upper . }}
      permissions: {
        {{- $.Files.Get (printf "files/nats/%s.conf" .) | required (printf "files/nats/%s.conf is missing: the rights of that user of NATS" .) | trim | nindent 8 }}
      }
    }
    {{- end }}
  ]
}
{{- end }}
{{- if gt (int $nats.replicas) 1 }}

cluster {
  name: "{{ include "weir.fullname" . }}"
  port: 6222
  # Clients know the Service's name, and the certificate holds no addresses of pods.
  no_advertise: true
  connect_retries: 120
  {{- if $nats.auth.enabled }}
  authorization {
    user: "cluster"
    password: $WEIR_PASSWORD_CLUSTER
    timeout: 5
  }
  {{- end }}
  {{- if $nats.tls.enabled }}
  tls {
    cert_file: "/etc/nats/tls/tls.crt"
    key_file: "/etc/nats/tls/tls.key"
    ca_file: "/etc/nats/tls/ca.crt"
    timeout: 5
  }
  {{- end }}
  routes: [
    {{- range $i := until (int $nats.replicas) }}
    {{- if $nats.auth.enabled }}
    $WEIR_ROUTE_{{ $i }}
    {{- else }}
    "nats-route://{{ include "weir.natsPeer" (dict "root" $ "index" $i) }}"
    {{- end }}
    {{- end }}
  ]
}
{{- end }}
{{- with $nats.extraConfig }}

{{ . }}
{{- end }}
{{- end }}

{{- define "weir.natsPeer" -}}
{{- $name := include "weir.natsName" .root -}}
{{ $name }}-{{ .index }}.{{ $name }}-headless.{{ .root.Release.Namespace }}.svc:6222
{{- end }}
