package chart_test

import (
	"slices"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
)

// TestNATSMove holds what the move to another NATS rests on: no Service has pods of the other, the Job's pod is nowhere beside the
// former NATS', and the controller waits for the same move.
func TestNATSMove(t *testing.T) {
	docs := render(t, `nats: {replicas: 3, suffix: "-2", moveFrom: {claim: data-weir-nats-0}}`)
	former := get[appsv1.StatefulSet](t, render(t, ``), "weir-nats").Spec.Template.Labels
	set := get[appsv1.StatefulSet](t, docs, "weir-nats-2")
	service := get[corev1.Service](t, docs, "weir-nats-2")
	const component = "app.kubernetes.io/component"
	if service.Spec.Selector[component] != set.Spec.Template.Labels[component] || service.Spec.Selector[component] == former[component] {
		t.Errorf("the Service is of the pods %v; the former NATS' are %v", service.Spec.Selector, former)
	}
	if set.Spec.ServiceName != get[corev1.Service](t, docs, "weir-nats-2-headless").Name {
		t.Error("the servers don't find each other by", set.Spec.ServiceName)
	}
	pod := get[batchv1.Job](t, docs, "weir-nats-move").Spec.Template
	var apart []string
	for _, term := range pod.Spec.Affinity.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution {
		if term.TopologyKey == corev1.LabelOSStable { // all nodes are one domain
			apart = append(apart, term.LabelSelector.MatchLabels["statefulset.kubernetes.io/pod-name"], term.LabelSelector.MatchLabels[component])
		}
	}
	if !slices.Contains(apart, "weir-nats-0") || !slices.Contains(apart, pod.Labels[component]) {
		t.Error("the volume may have two servers: it is kept apart from", apart)
	}
	args := pod.Spec.Containers[0].Args
	if !slices.Contains(args, "--name=data-weir-nats-0") || !slices.Contains(args, "--replicas=3") {
		t.Error("the Job runs", args)
	}
	docs = render(t, `
nats: {replicas: 3, suffix: "-2", moveFrom: {claim: data-weir-nats-0}, podAnnotations: {sidecar.istio.io/inject: "false"}}
controller: {resources: {limits: {memory: 512Mi}}}
`)
	pod = get[batchv1.Job](t, docs, "weir-nats-move").Spec.Template
	if c := pod.Spec.Containers[0]; pod.Annotations["sidecar.istio.io/inject"] != "false" || c.Resources.Limits.Memory().Value() != 512<<20 || env(c, "GOMEMLIMIT") != "456340275" {
		t.Errorf("the Job's pod has annotations %v and may take %v", pod.Annotations, c.Resources.Limits)
	}
	await := func(docs []typed) string {
		for _, e := range get[appsv1.Deployment](t, docs, "weir-controller").Spec.Template.Spec.Containers[0].Env {
			if e.Name == "WEIR_AWAIT_MOVE" {
				return e.Value
			}
		}
		return ""
	}
	if name := await(docs); name != "data-weir-nats-0" {
		t.Errorf("the controller waits for %q", name)
	}
	if name := await(render(t, `nats: {replicas: 3, suffix: "-2"}`)); name != "" {
		t.Errorf("the controller waits for %q although nothing is moved", name)
	}
}
