{{- define "weir.natsPermissions" -}}
{{- if or (eq . "controller") (eq . "operator") -}}
{
        publish: ["weir.>", "$JS.>", "$KV.>"]
        subscribe: ["weir.>", "$JS.>", "$KV.>", "_INBOX.>"]
      }
{{- else if eq . "dispatcher" -}}
{
        publish: {
          allow: ["weir.>", "$JS.API.>", "$JS.ACK.>", "$JS.FC.>"]
          # Streams are the controller's, and so is what the catalog's bucket holds.
          deny: [
            "$JS.API.STREAM.CREATE.>", "$JS.API.STREAM.UPDATE.>", "$JS.API.STREAM.DELETE.>", "$JS.API.STREAM.RESTORE.>",
            "$JS.API.STREAM.PEER.>", "$JS.API.META.>", "$JS.API.SERVER.>", "$JS.API.ACCOUNT.>",
            "$JS.API.STREAM.PURGE.KV_WEIR_CATALOG", "$JS.API.STREAM.MSG.DELETE.KV_WEIR_CATALOG"
          ]
        }
        subscribe: ["_INBOX.>"]
      }
{{- else -}}
{
        # Records into queues, and a watch of the catalog's bucket.
        publish: [
          "weir.q.>", "$JS.API.INFO", "$JS.API.STREAM.INFO.KV_WEIR_CATALOG", "$JS.API.DIRECT.GET.KV_WEIR_CATALOG.>",
          "$JS.API.CONSUMER.CREATE.KV_WEIR_CATALOG.>", "$JS.API.CONSUMER.INFO.KV_WEIR_CATALOG.>",
          "$JS.API.CONSUMER.DELETE.KV_WEIR_CATALOG.>", "$JS.ACK.KV_WEIR_CATALOG.>", "$JS.FC.>"
        ]
        subscribe: ["_INBOX.>"]
      }
{{- end }}
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
    {{- range list "controller" "operator" "gateway" "dispatcher" }}
    {
      user: "{{ index $nats.auth.usernames . }}", password: $WEIR_PASSWORD_{{ upper . }}
      permissions: {{ include "weir.natsPermissions" . }}
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
{{- $name := printf "%s-nats" (include "weir.fullname" .root) -}}
{{ $name }}-{{ .index }}.{{ $name }}-headless.{{ .root.Release.Namespace }}.svc:6222
{{- end }}
