{{- define "weir.pgbouncerConfig" -}}
{{- $values := .Values.pgbouncer -}}
[databases]
{{- range $values.databases }}
{{ .name }} = host={{ .host }} port={{ .port | default 5432 | int64 }}
{{- /* A database named * takes the name that the client asks for. */}}
{{- with .dbname | default (ternary "" .name (eq .name "*")) }} dbname={{ . }}{{ end }}
{{- with .user }} user={{ . }}{{ end }}
{{- with .poolSize }} pool_size={{ int64 . }}{{ end }}
{{- with .reservePool }} reserve_pool={{ int64 . }}{{ end }}
{{- with .poolMode }} pool_mode={{ . }}{{ end }}
{{- with .maxDbConnections }} max_db_connections={{ int64 . }}{{ end }}
{{- end }}

[pgbouncer]
{{- $settings := dict
      "listen_addr" "0.0.0.0"
      "listen_port" 6432
      "unix_socket_dir" ""
      "auth_type" $values.auth.type
      "auth_file" "/etc/pgbouncer/auth/userlist.txt"
      "pool_mode" $values.poolMode
      "default_pool_size" $values.defaultPoolSize
      "max_db_connections" $values.maxDbConnections
      "max_client_conn" $values.maxClientConn
      "reserve_pool_size" $values.reservePoolSize
      "reserve_pool_timeout" $values.reservePoolTimeout
      "server_idle_timeout" $values.serverIdleTimeout
      "query_wait_timeout" $values.queryWaitTimeout
      "server_connect_timeout" 3
      "server_login_retry" 1
      "ignore_startup_parameters" (join "," $values.ignoreStartupParameters)
      "server_tls_sslmode" $values.serverTls.sslmode
      "client_tls_sslmode" $values.clientTls.sslmode
      "log_connections" 0
      "log_disconnections" 0 }}
{{- if not (kindIs "invalid" $values.maxPreparedStatements) }}
{{- $_ := set $settings "max_prepared_statements" $values.maxPreparedStatements }}
{{- end }}
{{- with $values.auth.user }}{{ $_ := set $settings "auth_user" . }}{{ end }}
{{- with $values.auth.query }}{{ $_ := set $settings "auth_query" . }}{{ end }}
{{- with $values.adminUsers }}{{ $_ := set $settings "admin_users" (join "," .) }}{{ end }}
{{- $readers := $values.statsUsers | default list }}
{{- if $values.exporter.enabled }}{{ $readers = append $readers $values.exporter.user | uniq }}{{ end }}
{{- with $readers }}{{ $_ := set $settings "stats_users" (join "," .) }}{{ end }}
{{- if $values.serverTls.caSecret }}
{{- $_ := set $settings "server_tls_ca_file" "/etc/pgbouncer/server-tls/ca.crt" }}
{{- end }}
{{- if ne $values.clientTls.sslmode "disable" }}
{{- $_ := set $settings "client_tls_cert_file" "/etc/pgbouncer/client-tls/tls.crt" }}
{{- $_ := set $settings "client_tls_key_file" "/etc/pgbouncer/client-tls/tls.key" }}
{{- end }}
{{- range $key, $value := $values.extraConfig }}
{{- if hasKey $settings $key }}
{{- fail (printf "pgbouncer.extraConfig.%s: the chart sets this itself; use its own value" $key) }}
{{- end }}
{{- $_ := set $settings $key $value }}
{{- end }}
{{- range $key, $value := $settings }}
{{ printf "%s = %v" $key (ternary $value ($value | int64) (kindIs "string" $value)) | trim }}
{{- end }}
{{- end }}

{{- define "weir.pgbouncerAuthSecret" -}}
{{- .Values.pgbouncer.auth.existingSecret | default (printf "%s-pgbouncer-auth" (include "weir.fullname" .)) }}
{{- end }}

{{- define "weir.pgbouncerUserlist" -}}
{{- range .Values.pgbouncer.auth.users }}
"{{ .name | replace "\"" "\"\"" }}" "{{ .password | replace "\"" "\"\"" }}"
{{- end }}
{{- end }}
