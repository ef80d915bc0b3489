package chart_test

import (
	"slices"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	networkingv1 "k8s.io/api/networking/v1"
)

// TestCollector holds the collector of what functions print to the least that it needs: one folder of the node, to read.
func TestCollector(t *testing.T) {
	if n := len(all[appsv1.DaemonSet](render(t, ``))); n != 0 {
		t.Errorf("%d DaemonSets that nobody asked for", n)
	}
	docs := render(t, `emf: {enabled: true}`)
	set := get[appsv1.DaemonSet](t, docs, "weir-emf")
	spec := set.Spec.Template.Spec
	if len(spec.Volumes) != 1 || spec.Volumes[0].HostPath == nil || spec.Volumes[0].HostPath.Path != "/var/log/pods" {
		t.Errorf("it mounts %v", spec.Volumes)
	}
	c := spec.Containers[0]
	if len(c.VolumeMounts) != 1 || !c.VolumeMounts[0].ReadOnly || c.VolumeMounts[0].MountPath != "/var/log/pods" {
		t.Errorf("it mounts %v", c.VolumeMounts)
	}
	if s := spec.SecurityContext; *s.RunAsUser != 65532 || *s.RunAsGroup != 0 {
		t.Errorf("it runs as %d:%d", *s.RunAsUser, *s.RunAsGroup)
	}
	if !slices.Contains(c.Args, "--container=user-container") || set.Spec.UpdateStrategy.RollingUpdate.MaxSurge.IntValue() != 0 {
		t.Errorf("%v %v", c.Args, set.Spec.UpdateStrategy)
	}
	if policy := get[networkingv1.NetworkPolicy](t, docs, "weir-emf"); len(policy.Spec.PolicyTypes) != 2 || len(policy.Spec.Egress) != 0 {
		t.Errorf("it may connect to others: %v", policy.Spec.Egress)
	}
	docs = render(t, matrix["emf with all"])
	c = get[appsv1.DaemonSet](t, docs, "weir-emf").Spec.Template.Spec.Containers[0]
	for _, arg := range []string{"--namespace=shop", "--namespace=billing", "--pod=order-*", "--pod=mail"} {
		if !slices.Contains(c.Args, arg) {
			t.Errorf("%v lacks %s", c.Args, arg)
		}
	}
	if env(c, "OTEL_EXPORTER_OTLP_ENDPOINT") != "http://collector.telemetry:4318" {
		t.Errorf("%v", c.Env)
	}
	if policy := get[networkingv1.NetworkPolicy](t, docs, "weir-emf"); len(policy.Spec.Egress) != 2 {
		t.Errorf("%v", policy.Spec.Egress)
	}
}
