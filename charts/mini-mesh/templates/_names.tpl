{{- /* Names. A revision other than the default one has its name as a suffix. */ -}}
{{- define "mini-mesh.suffix" -}}
{{- if ne .Values.revision "default" -}}-{{ .Values.revision }}{{- end -}}
{{- end -}}
{{- define "mini-mesh.control" -}}
mesh-control{{ include "mini-mesh.suffix" . }}
{{- end -}}
{{- /* Name of cluster-wide objects, which share one space with everybody's. */ -}}
{{- define "mini-mesh.clusterwide" -}}
mini-mesh-control{{ include "mini-mesh.suffix" . }}
{{- end -}}
{{- define "mini-mesh.tag" -}}
{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}
{{- /* Labels of every object. */ -}}
{{- define "mini-mesh.labels" -}}
app.kubernetes.io/name: mini-mesh
app.kubernetes.io/part-of: mini-mesh
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
istio.io/rev: {{ .Values.revision }}
{{- end -}}
{{- /* Labels by which the pods of the control plane are found; they never change. */ -}}
{{- define "mini-mesh.selector" -}}
app: mesh-control
istio.io/rev: {{ .Values.revision }}
mini-mesh.io/component: control
{{- end -}}
