{{/*
The spec of a component's pods, in which nothing may be twice that the values bring along. Takes root, component, spec, which is the
text of it, and claims, the names of a StatefulSet's volume claims. The component's own container has its name, and what is the
chart's stands before what is from the values.
*/}}
{{- define "weir.pod" -}}
{{- $spec := fromYaml .spec }}
{{- $values := index .root.Values .component }}
{{- $volumes := .claims | default list }}
{{- range $spec.volumes }}
{{- if has .name $volumes }}
{{- fail (printf "%s.extraVolumes: the pods have a volume named %s already" $.component .name) }}
{{- end }}
{{- $volumes = append $volumes .name }}
{{- end }}
{{- $more := $values.extraContainers | default list }}
{{- $names := list }}
{{- range slice $spec.containers 0 (sub (len $spec.containers) (len $more)) }}
{{- $names = append $names .name }}
{{- end }}
{{- range $key := list "initContainers" "extraContainers" }}
{{- range get $values $key | default list }}
{{- if has .name $names }}
{{- fail (printf "%s.%s: the pods have a container named %s already" $.component $key .name) }}
{{- end }}
{{- $names = append $names .name }}
{{- range .volumeMounts }}
{{- if not (has .name $volumes) }}
{{- fail (printf "%s.%s: the pods have no volume named %s: add it to %s.extraVolumes" $.component $key .name $.component) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- range $spec.containers }}
{{- if eq .name $.component }}
{{- $variables := list }}
{{- range .env }}
{{- if has .name $variables }}
{{- fail (printf "%s.extraEnv: the pods have a variable named %s already" $.component .name) }}
{{- end }}
{{- $variables = append $variables .name }}
{{- end }}
{{- $paths := list }}
{{- $closed := list }}
{{- $ours := sub (len .volumeMounts) (len ($values.extraVolumeMounts | default list)) | int }}
{{- range $i, $_ := .volumeMounts }}
{{- $path := clean .mountPath }}
{{- if not (has .name $volumes) }}
{{- fail (printf "%s.extraVolumeMounts: the pods have no volume named %s: add it to %s.extraVolumes" $.component .name $.component) }}
{{- end }}
{{- if has $path $paths }}
{{- fail (printf "%s.extraVolumeMounts: there is a volume at %s already" $.component $path) }}
{{- end }}
{{- range $closed }}
{{- if hasPrefix (printf "%s/" .) $path }}
{{- fail (printf "%s.extraVolumeMounts: nothing can be mounted at %s, for the volume at %s can't be written" $.component $path .) }}
{{- end }}
{{- end }}
{{- $paths = append $paths $path }}
{{- if and .readOnly (lt $i $ours) }}{{ $closed = append $closed $path }}{{ end }}
{{- end }}
{{- end }}
{{- end }}
{{- trim .spec }}
{{- end }}
