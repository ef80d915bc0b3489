{{- /* Each user's answers and deliveries come under an inbox prefix of its own. A stream's name is one token of a
subject, which can't be matched by its beginning: hence the wildcards, and what they must not reach is denied.
internal/app's TestServicesNeedNoMoreRights runs the services with the same lists. */}}
{{- define "weir.natsPermissions" -}}
{{- if or (eq . "controller") (eq . "operator") -}}
{
        publish: ["weir.>", "$JS.>", "$KV.>"]
        subscribe: ["weir.>", "$JS.>", "$KV.>", "_INBOX_{{ . }}.>"]
      }
{{- else if eq . "dispatcher" -}}
{
        publish: {
          # Records to be tried again, dead letters, states of jobs, leases; what its consumers need; watches of the
          # buckets of catalog and keys.
          allow: [
            "weir.r.>", "weir.d.>", "weir.j.>", "weir.o.>", "weir.lease.>", "$JS.ACK.>", "$JS.API.STREAM.INFO.*", "$JS.API.STREAM.PURGE.*",
            "$JS.API.STREAM.MSG.GET.WEIR_LEASES", "$JS.API.CONSUMER.CREATE.WEIR_LEASES.*.weir.lease.>",
            "$JS.API.DIRECT.GET.*.weir.j.>", "$JS.API.DIRECT.GET.*.weir.o.>", "$JS.API.DIRECT.GET.*.weir.r.*.*.at.*",
            "$JS.API.CONSUMER.CREATE.*.dispatcher", "$JS.API.CONSUMER.CREATE.*.dispatcher.>", "$JS.API.CONSUMER.INFO.*.dispatcher",
            "$JS.API.CONSUMER.RESET.*.dispatcher", "$JS.API.CONSUMER.MSG.NEXT.*.dispatcher",
            "$JS.API.CONSUMER.CREATE.KV_WEIR_CATALOG.>", "$JS.API.CONSUMER.DELETE.KV_WEIR_CATALOG.>", "$JS.FC.KV_WEIR_CATALOG.>",
            "$JS.API.CONSUMER.CREATE.KV_WEIR_KEYS.>", "$JS.API.CONSUMER.DELETE.KV_WEIR_KEYS.>", "$JS.FC.KV_WEIR_KEYS.>"
          ]
          deny: ["$JS.API.STREAM.PURGE.KV_WEIR_CATALOG", "$JS.API.STREAM.PURGE.KV_WEIR_KEYS", "$JS.API.STREAM.PURGE.WEIR_LEASES"]
        }
        subscribe: ["_INBOX_dispatcher.>", "weir.e.>"]
      }
{{- else if eq . "realtime" -}}
{
        # The look at states of jobs, consumers of a client's; watches of the buckets of catalog and keys. The dispatcher's
        # consumers, which such a request could change, are none of its business.
        publish: {
          allow: [
            "$JS.API.STREAM.INFO.KV_WEIR_CATALOG", "$JS.API.STREAM.INFO.KV_WEIR_KEYS", "$JS.API.DIRECT.GET.*.weir.j.>", "$JS.API.CONSUMER.CREATE.*.*.weir.j.>",
            "$JS.API.CONSUMER.CREATE.KV_WEIR_CATALOG.>", "$JS.API.CONSUMER.DELETE.KV_WEIR_CATALOG.>", "$JS.FC.KV_WEIR_CATALOG.>",
            "$JS.API.CONSUMER.CREATE.KV_WEIR_KEYS.>", "$JS.API.CONSUMER.DELETE.KV_WEIR_KEYS.>", "$JS.FC.KV_WEIR_KEYS.>"
          ]
          deny: ["$JS.API.CONSUMER.CREATE.*.dispatcher.>"]
        }
        subscribe: ["_INBOX_realtime.>", "weir.e.>"]
      }
{{- else -}}
{
        # Records into queues, states of jobs and delays of their records; the look at these; watches of the buckets of
        # catalog and keys.
        publish: [
          "weir.q.>", "weir.j.>", "weir.o.>", "weir.r.*.*.at.*", "$JS.API.STREAM.INFO.KV_WEIR_CATALOG", "$JS.API.STREAM.INFO.KV_WEIR_KEYS",
          "$JS.API.DIRECT.GET.*.weir.q.*.*.*", "$JS.API.DIRECT.GET.*.weir.j.>", "$JS.API.DIRECT.GET.*.weir.o.>", "$JS.API.DIRECT.GET.*.weir.r.*.*.at.*",
          "$JS.API.CONSUMER.CREATE.KV_WEIR_CATALOG.>", "$JS.API.CONSUMER.DELETE.KV_WEIR_CATALOG.>", "$JS.FC.KV_WEIR_CATALOG.>",
          "$JS.API.CONSUMER.CREATE.KV_WEIR_KEYS.>", "$JS.API.CONSUMER.DELETE.KV_WEIR_KEYS.>", "$JS.FC.KV_WEIR_KEYS.>"
        ]
        subscribe: ["_INBOX_gateway.>", "weir.e.>"]
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
    {{- range list "controller" "operator" "gateway" "dispatcher" "realtime" }}
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
