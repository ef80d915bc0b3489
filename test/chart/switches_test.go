package chart_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
)

// TestChecksums holds that the checksums at the pods are of the passwords in the Secret of the same rendering: else
// the first upgrade would restart everything for nothing.
func TestChecksums(t *testing.T) {
	docs := render(t, ``)
	auth, tls := get[corev1.Secret](t, docs, "weir-nats-auth"), get[corev1.Secret](t, docs, "weir-nats-tls")
	sum := func(data []byte) string {
		return fmt.Sprintf("%x", sha256.Sum256([]byte(base64.StdEncoding.EncodeToString(data))))
	}
	for _, component := range stageNames() {
		a := get[appsv1.Deployment](t, docs, "weir-"+component).Spec.Template.Annotations
		if got, want := a["checksum/nats-password"], sum(auth.Data[component+"-password"]); got != want {
			t.Errorf("%s: checksum of the password is %s, want %s", component, got, want)
		}
		if got, want := a["checksum/nats-ca"], sum(tls.Data["ca.crt"]); got != want {
			t.Errorf("%s: checksum of the CA is %s, want %s", component, got, want)
		}
	}
	a := get[appsv1.StatefulSet](t, docs, "weir-nats").Spec.Template.Annotations
	for _, name := range []string{"config", "auth", "tls"} {
		if a["checksum/"+name] == "" {
			t.Errorf("the pods of NATS have no checksum/%s", name)
		}
	}
	b := get[appsv1.StatefulSet](t, render(t, `nats: {jetstream: {maxMemoryStore: 1Mi}}`), "weir-nats").Spec.Template.Annotations
	if a["checksum/config"] == b["checksum/config"] {
		t.Error("another configuration of NATS doesn't restart it")
	}
}

func TestCustomResourceDefinitions(t *testing.T) {
	files, err := filepath.Glob(chart + "/files/crds/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	const mark = "    helm.sh/resource-policy: keep\n"
	kept, dropped := render(t, ``), render(t, `crds: {keep: false}`)
	for _, docs := range [][]typed{kept, dropped, render(t, `crds: {install: false}`)} {
		n := len(all[apiextensionsv1.CustomResourceDefinition](docs))
		if want := len(files); n != want && n != 0 {
			t.Errorf("%d definitions are rendered, %d are in files/crds", n, want)
		}
	}
	for _, file := range files {
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		want = bytes.TrimPrefix(want, []byte("---\n"))
		same := func(d typed, without string) bool {
			_, body, _ := strings.Cut(strings.TrimPrefix(d.text, "\n"), "\n") // Helm's comment
			return strings.TrimSpace(strings.Replace(body, without, "", 1)) == strings.TrimSpace(string(want))
		}
		found := func(docs []typed, without string) bool {
			return slices.ContainsFunc(docs, func(d typed) bool { return d.kind == "CustomResourceDefinition" && same(d, without) })
		}
		if !found(kept, mark) || !found(dropped, "") {
			t.Errorf("%s is not rendered as it is", file)
		}
	}
	for _, crd := range all[apiextensionsv1.CustomResourceDefinition](kept) {
		if crd.Annotations["helm.sh/resource-policy"] != "keep" {
			t.Errorf("%s would go with the release", crd.Name)
		}
	}
}

// TestEnvironment holds what each stage is told (docs/operations.md).
func TestEnvironment(t *testing.T) {
	const secrets = "/var/run/secrets/weir/nats/"
	common := map[string]string{
		"WEIR_INSTANCE": "metadata.name", "WEIR_HEALTH_LISTEN": ":8081", "WEIR_LOG_LEVEL": "info", "WEIR_LOG_FORMAT": "json",
		"WEIR_LOG_LEVEL_FILE": "/etc/weir/log/level",
		"WEIR_NATS_URL":       "tls://weir-nats.weir-system.svc:4222", "WEIR_NATS_PASSWORD_FILE": secrets + "password",
		"WEIR_NATS_CA_FILE": secrets + "ca.crt",
	}
	docs := render(t, ``)
	for name, stage := range stages {
		want := maps.Clone(common)
		want["WEIR_NATS_USER"] = name
		maps.Copy(want, stage.env)
		spec := get[appsv1.Deployment](t, docs, "weir-"+name).Spec.Template.Spec
		got := map[string]string{}
		for _, e := range spec.Containers[0].Env {
			got[e.Name] = e.Value
			if e.ValueFrom != nil {
				got[e.Name] = e.ValueFrom.FieldRef.FieldPath
			}
		}
		for key := range want {
			if v, ok := got[key]; !ok || v != want[key] {
				t.Errorf("%s: %s is %q, want %q", name, key, v, want[key])
			}
			delete(got, key)
		}
		if len(got) > 0 {
			t.Errorf("%s has more in its environment: %v", name, got)
		}
		// Its own password and the CA's certificate: nothing else of these Secrets.
		sources := spec.Volumes[0].Projected.Sources
		if len(sources) != 2 || sources[0].Secret.Items[0].Key != name+"-password" || len(sources[0].Secret.Items) != 1 ||
			len(sources[1].Secret.Items) != 1 || sources[1].Secret.Items[0].Key != "ca.crt" {
			t.Errorf("%s mounts %v", name, sources)
		}
		if image := spec.Containers[0].Image; image != "ghcr.io/weir-dev/weir/"+name+":0.1.0" {
			t.Errorf("%s: image %s", name, image)
		}
	}
}

// TestSwitches holds what single values change.
func TestSwitches(t *testing.T) {
	gateway := func(values string) *appsv1.Deployment {
		return get[appsv1.Deployment](t, render(t, values), "weir-gateway")
	}
	if d := gateway(``); *d.Spec.Replicas != 2 || d.Spec.Strategy.RollingUpdate.MaxUnavailable.IntValue() != 0 {
		t.Error("the gateway doesn't have two replicas with none unavailable in an update")
	}
	docs := render(t, matrix["autoscaling"])
	if get[appsv1.Deployment](t, docs, "weir-gateway").Spec.Replicas != nil {
		t.Error("an upgrade would undo what the autoscaler did")
	}
	if h := get[autoscalingv2.HorizontalPodAutoscaler](t, docs, "weir-gateway"); *h.Spec.MinReplicas != 3 || h.Spec.ScaleTargetRef.Name != "weir-gateway" {
		t.Error("the autoscaler is for something else")
	}
	if image := gateway(`gateway: {image: "x@sha256:1"}`).Spec.Template.Spec.Containers[0].Image; image != "x@sha256:1" {
		t.Error("gateway.image is not taken as it is:", image)
	}
	if g := *gateway(`gateway: {drainTimeout: 120s, preStopSleepSeconds: 7}`).Spec.Template.Spec.TerminationGracePeriodSeconds; g != 137 {
		t.Error("the grace period doesn't follow from drainTimeout and preStopSleepSeconds:", g)
	}
	if !slices.Contains(gateway(`gateway: {h2c: true}`).Spec.Template.Spec.Containers[0].Env, corev1.EnvVar{Name: "WEIR_H2C", Value: "on"}) {
		t.Error("gateway.h2c changes nothing")
	}
	docs = render(t, `gateway: {pathPrefix: /shop}`)
	for _, name := range []string{"weir-gateway", "weir-realtime", "weir-orchestrator"} { // they give addresses to clients
		if !slices.Contains(get[appsv1.Deployment](t, docs, name).Spec.Template.Spec.Containers[0].Env, corev1.EnvVar{Name: "WEIR_PATH_PREFIX", Value: "/shop"}) {
			t.Error(name, "does not know gateway.pathPrefix")
		}
	}
	if n := len(all[networkingv1.NetworkPolicy](render(t, matrix["no network policies"]))); n != 0 {
		t.Error(n, "network policies though they are off")
	}
	if docs := render(t, ``); len(all[podMonitor](docs))+len(all[prometheusRule](docs)) != 0 {
		t.Error("a PodMonitor or a PrometheusRule though they are off")
	}
	if out, err := helm(t, "template", "prod", chart, "--kube-version", kubeVersion); err != nil || !strings.Contains(out, "name: \"prod-weir-gateway\"\n") {
		t.Error("a release without weir in its name: RELEASE-weir", err)
	}

	mayRunJobs := func(rules []rbacv1.PolicyRule) (verbs []string) {
		for _, r := range rules {
			if slices.Contains(r.Resources, "jobs") {
				verbs = r.Verbs
			}
		}
		return verbs
	}
	for values, want := range map[string]string{``: "", `batch: {enabled: true}`: "on"} {
		docs := render(t, values)
		for _, name := range []string{"weir-controller", "weir-orchestrator"} { // the one asks the other
			if got := env(get[appsv1.Deployment](t, docs, name).Spec.Template.Spec.Containers[0], "WEIR_BATCH"); got != want {
				t.Errorf("%q: WEIR_BATCH of %s is %q", values, name, got)
			}
		}
		verbs := mayRunJobs(get[rbacv1.ClusterRole](t, docs, "weir-controller-weir-system").Rules)
		if slices.Contains(verbs, "create") != (want == "on") || slices.Contains(verbs, "delete") != (want == "on") {
			t.Errorf("%q: the controller may %v jobs", values, verbs)
		}
	}
	docs = render(t, matrix["batch"])
	if len(mayRunJobs(get[rbacv1.Role](t, docs, "weir-controller-weir-system").Rules)) == 0 {
		t.Error("batch.enabled with watchNamespaces gives no right there")
	}

	docs = render(t, matrix["namespaces"])
	for _, r := range all[rbacv1.ClusterRole](docs) {
		if r.Labels["app.kubernetes.io/component"] == "controller" {
			t.Error("watchNamespaces is set, and there is a ClusterRole")
		}
	}
	for _, ns := range []string{"shop", "billing"} {
		if !slices.ContainsFunc(all[rbacv1.RoleBinding](docs), func(b *rbacv1.RoleBinding) bool { return b.Namespace == ns }) {
			t.Error("no RoleBinding in", ns)
		}
	}
	if v := env(get[appsv1.Deployment](t, docs, "weir-controller").Spec.Template.Spec.Containers[0], "WEIR_NAMESPACES"); v != "shop,billing" {
		t.Error("WEIR_NAMESPACES is", v)
	}

	for name, want := range map[string]string{"nats cluster": "3", "nats of others": "1", "everything": "1"} {
		docs := render(t, matrix[name])
		for _, d := range all[appsv1.Deployment](docs) {
			if c := d.Spec.Template.Spec.Containers[0]; c.Name == "controller" && env(c, "WEIR_STREAM_REPLICAS") != want {
				t.Errorf("%s: WEIR_STREAM_REPLICAS is %s", name, env(c, "WEIR_STREAM_REPLICAS"))
			}
		}
		if name == "nats of others" && len(all[appsv1.StatefulSet](docs)) != 0 {
			t.Error("a NATS though nats.enabled is false")
		}
	}
}

// TestS3: those who have to do with objects are told where they are, and get the credentials; others aren't and don't.
func TestS3(t *testing.T) {
	docs := render(t, `objects: {s3: {endpoint: "https://s3.example.com", bucket: weir, prefix: a/, region: eu, publicEndpoint: "https://pub.example.com", existingSecret: s3-keys, ownCA: true}}`)
	want := map[string]string{
		"WEIR_S3_ENDPOINT": "https://s3.example.com", "WEIR_S3_PUBLIC_ENDPOINT": "https://pub.example.com", "WEIR_S3_BUCKET": "weir", "WEIR_S3_PREFIX": "a/",
		"WEIR_S3_REGION": "eu", "WEIR_S3_CREDENTIALS_FILE": "/var/run/secrets/weir/s3/credentials", "WEIR_S3_CA_FILE": "/var/run/secrets/weir/s3/ca.crt",
	}
	for component, stage := range stages {
		pod := get[appsv1.Deployment](t, docs, "weir-"+component).Spec.Template.Spec
		got := map[string]string{}
		for _, e := range pod.Containers[0].Env {
			if strings.HasPrefix(e.Name, "WEIR_S3_") {
				got[e.Name] = e.Value
			}
		}
		secrets := []string{}
		for _, v := range pod.Volumes {
			if v.Secret != nil {
				secrets = append(secrets, v.Secret.SecretName)
			}
		}
		mounted := slices.ContainsFunc(pod.Containers[0].VolumeMounts, func(m corev1.VolumeMount) bool { return m.MountPath == "/var/run/secrets/weir/s3" })
		if !stage.objects {
			if len(got) > 0 || len(secrets) > 0 || mounted {
				t.Errorf("%s has %v and %v", component, got, secrets)
			}
			continue
		}
		if !maps.Equal(got, want) || !slices.Equal(secrets, []string{"s3-keys"}) || !mounted {
			t.Errorf("%s has %v, and %v, mounted: %t", component, got, secrets, mounted)
		}
	}

	// Without a Secret the pods have an identity of their own.
	docs = render(t, `objects: {s3: {endpoint: "https://s3.example.com", bucket: weir}}`)
	for component := range stages {
		pod := get[appsv1.Deployment](t, docs, "weir-"+component).Spec.Template.Spec
		if env(pod.Containers[0], "WEIR_S3_CREDENTIALS_FILE") != "" || slices.ContainsFunc(pod.Volumes, func(v corev1.Volume) bool { return v.Name == "s3" }) {
			t.Errorf("%s is to find credentials in a Secret that nobody named", component)
		}
	}
}
