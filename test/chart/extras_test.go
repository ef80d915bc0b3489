package chart_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// TestExtras: each stage takes what its cluster wants of it.
func TestExtras(t *testing.T) {
	docs := render(t, `
gateway: &more
  annotations: {reloader: "yes"}
  serviceAccount: {annotations: {eks.amazonaws.com/role-arn: "arn:aws:iam::1:role/weir"}}
  extraVolumes: [{name: more, emptyDir: {}}]
  extraVolumeMounts: [{name: more, mountPath: /more}]
  extraContainers: [{name: sidecar, image: sidecar:1}]
  initContainers: [{name: first, image: first:1, restartPolicy: Always}]
`+others("more", "gateway")+`
nats: *more
emf: {enabled: true, annotations: {reloader: "yes"}}
`+strings.Replace(pgbouncerOn, "enabled: true", "<<: *more\n  enabled: true", 1))
	set := get[appsv1.StatefulSet](t, docs, "weir-nats")
	for _, name := range append(stageNames(), "pgbouncer", "nats") {
		d := &appsv1.Deployment{ObjectMeta: set.ObjectMeta, Spec: appsv1.DeploymentSpec{Template: set.Spec.Template}}
		if name != "nats" {
			d = get[appsv1.Deployment](t, docs, "weir-"+name)
		}
		spec := d.Spec.Template.Spec
		if len(spec.Containers) != 2 || spec.Containers[0].Name != name || spec.Containers[1].Name != "sidecar" || len(spec.InitContainers) != 1 || spec.InitContainers[0].Name != "first" {
			t.Errorf("%s: containers %v, before them %v", name, spec.Containers, spec.InitContainers)
		}
		if !slices.ContainsFunc(spec.Volumes, func(v corev1.Volume) bool { return v.Name == "more" && v.EmptyDir != nil }) ||
			!slices.ContainsFunc(spec.Containers[0].VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == "more" && m.MountPath == "/more" }) {
			t.Errorf("%s: volumes %v", name, spec.Volumes)
		}
		if a := get[corev1.ServiceAccount](t, docs, "weir-"+name).Annotations; a["eks.amazonaws.com/role-arn"] == "" {
			t.Errorf("%s: annotations of the ServiceAccount: %v", name, a)
		}
		if d.Annotations["reloader"] != "yes" || d.Spec.Template.Annotations["reloader"] != "" {
			t.Errorf("%s: annotations %v", name, d.Annotations)
		}
	}
	if annotations := get[appsv1.DaemonSet](t, docs, "weir-emf").Annotations; annotations["reloader"] != "yes" {
		t.Errorf("annotations %v", annotations)
	}
	// A backup of NATS reads its volume, and the exporters stay where they are.
	docs = render(t, `nats: {exporter: {enabled: true}, extraContainers: [{name: backup, image: backup:1, volumeMounts: [{name: data, mountPath: /data, readOnly: true}]}]}`)
	if c := get[appsv1.StatefulSet](t, docs, "weir-nats").Spec.Template.Spec.Containers; len(c) != 3 || c[1].Name != "exporter" || c[2].Name != "backup" {
		t.Errorf("containers of NATS: %v", c)
	}
}

// TestDigests: each image that the chart names may have a digest, which takes the place of its tag.
func TestDigests(t *testing.T) {
	digest := "sha256:" + strings.Repeat("0123456789abcdef", 4)
	values := strings.NewReplacer("DIGEST", digest).Replace(`
image: {registry: "localhost:5000/weir"}
gateway: &digest {imageDigest: DIGEST}
` + others("digest", "gateway", "realtime") + `
realtime: {image: "registry.example.com:443/mine:v1@sha256:1", imageDigest: DIGEST}
emf: {enabled: true, imageDigest: DIGEST}
nats: {imageDigest: DIGEST, exporter: {enabled: true, imageDigest: DIGEST}}
pgbouncer:
  enabled: true
  imageDigest: DIGEST
  databases: [{name: orders, host: postgres.default.svc}]
  auth: {existingSecret: users}
  exporter: {enabled: true, imageDigest: DIGEST}
tests: {imageDigest: DIGEST}
`)
	want := map[string]bool{
		"localhost:5000/weir/emf": true, "registry.example.com:443/mine": true, "docker.io/library/nats": true, "docker.io/natsio/prometheus-nats-exporter": true,
		"docker.io/edoburu/pgbouncer": true, "quay.io/prometheuscommunity/pgbouncer-exporter": true, "docker.io/curlimages/curl": true,
	}
	for _, name := range stageNames() {
		if name != "realtime" {
			want["localhost:5000/weir/"+name] = true
		}
	}
	got := map[string]bool{}
	for _, p := range pods(render(t, values)) {
		for _, c := range p.spec.Containers {
			repository, ok := strings.CutSuffix(c.Image, "@"+digest)
			if !ok {
				t.Errorf("%s: image %s", p.name, c.Image)
			}
			got[repository] = true
		}
	}
	if !maps.Equal(got, want) {
		t.Errorf("images of %v, want %v", got, want)
	}
}

// TestGatewayService: what a load balancer wants to know.
func TestGatewayService(t *testing.T) {
	s := get[corev1.Service](t, render(t, `gateway: {service: {type: LoadBalancer, port: 443, nodePort: 30443, loadBalancerClass: service.k8s.aws/nlb, loadBalancerSourceRanges: [203.0.113.0/24], externalTrafficPolicy: Local}}`), "weir-gateway").Spec
	if s.Type != corev1.ServiceTypeLoadBalancer || s.Ports[0].NodePort != 30443 || s.Ports[0].Port != 443 || *s.LoadBalancerClass != "service.k8s.aws/nlb" ||
		!slices.Equal(s.LoadBalancerSourceRanges, []string{"203.0.113.0/24"}) || s.ExternalTrafficPolicy != corev1.ServiceExternalTrafficPolicyLocal {
		t.Errorf("%+v", s)
	}
	if s := get[corev1.Service](t, render(t, ``), "weir-gateway").Spec; s.Ports[0].NodePort != 0 || s.LoadBalancerClass != nil || s.ExternalTrafficPolicy != "" {
		t.Errorf("by default: %+v", s)
	}
}

// TestIngress: it leads to the gateway, for each host.
func TestIngress(t *testing.T) {
	if n := len(all[networkingv1.Ingress](render(t, ``))); n != 0 {
		t.Error(n, "Ingresses though they are off")
	}
	for _, c := range []struct {
		values, path string
		hosts        []string
	}{
		{`ingress: {enabled: true}`, "/", []string{""}},
		{`{ingress: {enabled: true, hosts: [a.example.com, b.example.com]}, gateway: {pathPrefix: /shop}}`, "/shop", []string{"a.example.com", "b.example.com"}},
		{`{ingress: {enabled: true, path: /other}, gateway: {pathPrefix: /shop}}`, "/other", []string{""}},
	} {
		docs := render(t, c.values)
		var hosts []string
		for _, rule := range get[networkingv1.Ingress](t, docs, "weir").Spec.Rules {
			hosts = append(hosts, rule.Host)
			path := rule.HTTP.Paths[0]
			to := path.Backend.Service
			if len(rule.HTTP.Paths) != 1 || path.Path != c.path || *path.PathType != networkingv1.PathTypePrefix || get[corev1.Service](t, docs, to.Name).Spec.Ports[0].Port != to.Port.Number {
				t.Errorf("%q: %+v", c.values, rule.HTTP)
			}
		}
		if !slices.Equal(hosts, c.hosts) {
			t.Errorf("%q: hosts %v", c.values, hosts)
		}
	}
	i := get[networkingv1.Ingress](t, render(t, matrix["everything"]), "other")
	if *i.Spec.IngressClassName != "nginx" || len(i.Spec.TLS) != 1 || i.Annotations["nginx.ingress.kubernetes.io/rewrite-target"] == "" {
		t.Errorf("%+v", i)
	}
}

// TestRequests: by default a release asks for what was measured, and may take what it might need. What runs to an end asks for no more
// than others of its image, after or before them.
func TestRequests(t *testing.T) {
	asked := resource.Quantity{}
	docs := render(t, ``)
	for _, p := range pods(docs) {
		replicas := 1
		if d := lookup[appsv1.Deployment](docs, p.name); d != nil {
			replicas = int(*d.Spec.Replicas)
		}
		if p.ends() {
			replicas = 0
		}
		for _, c := range p.spec.Containers {
			request, limit := c.Resources.Requests.Memory(), c.Resources.Limits.Memory()
			if request.IsZero() || limit.Cmp(*request) <= 0 {
				t.Errorf("%s asks for %s, and may take %s", p.name, request, limit)
			}
			for range replicas {
				asked.Add(*request)
			}
		}
	}
	if most := resource.MustParse("900Mi"); asked.Cmp(most) > 0 {
		t.Errorf("all pods together ask for %s", asked.String())
	}
}

// TestFractions: sizes are read as Kubernetes reads them.
func TestFractions(t *testing.T) {
	docs := render(t, `
gateway: {resources: {requests: {cpu: 0.5, memory: 0.1Gi}, limits: {memory: 1.5Gi}}}
orchestrator: {maxBytes: 0.5Gi}
nats: {persistence: {size: 1.5Ti}, jetstream: {maxFileStore: 0.1Gi, maxMemoryStore: 1.25M}, resources: {limits: {memory: 2.5G}}}
`)
	c := get[appsv1.Deployment](t, docs, "weir-gateway").Spec.Template.Spec.Containers[0]
	if got := env(c, "GOMEMLIMIT"); got != "1369020825" { // 85 % of 1.5Gi
		t.Error("GOMEMLIMIT is", got)
	}
	if c.Resources.Requests.Cpu().MilliValue() != 500 || c.Resources.Requests.Memory().Value() != 107374183 {
		t.Errorf("requests %v", c.Resources.Requests)
	}
	set := get[appsv1.StatefulSet](t, docs, "weir-nats")
	if got := env(set.Spec.Template.Spec.Containers[0], "GOMEMLIMIT"); got != "2125000000" {
		t.Error("GOMEMLIMIT of NATS is", got)
	}
	conf := get[corev1.ConfigMap](t, docs, "weir-nats").Data["nats.conf"]
	if !strings.Contains(conf, "max_file_store: 107374183\n") || !strings.Contains(conf, "max_memory_store: 1250000\n") {
		t.Error(conf)
	}
	if size := set.Spec.VolumeClaimTemplates[0].Spec.Resources.Requests.Storage(); size.Value() != 3<<39 {
		t.Error("a claim of", size)
	}
	// A number is one of bytes.
	docs = render(t, `
gateway: {resources: {requests: {memory: 134217728}, limits: {memory: 1073741824}}}
orchestrator: {maxBytes: 1073741824}
nats: {persistence: {size: 107374182400}, jetstream: {maxMemoryStore: 67108864}}
`)
	c = get[appsv1.Deployment](t, docs, "weir-gateway").Spec.Template.Spec.Containers[0]
	if env(c, "GOMEMLIMIT") != "912680550" || c.Resources.Requests.Memory().Value() != 1<<27 || c.Resources.Limits.Memory().Value() != 1<<30 {
		t.Errorf("GOMEMLIMIT is %s, of %v", env(c, "GOMEMLIMIT"), c.Resources)
	}
	if got := env(get[appsv1.Deployment](t, docs, "weir-controller").Spec.Template.Spec.Containers[0], "WEIR_EXECUTIONS_MAX_BYTES"); got != "1073741824" {
		t.Error("executions may take", got)
	}
	set = get[appsv1.StatefulSet](t, docs, "weir-nats")
	conf = get[corev1.ConfigMap](t, docs, "weir-nats").Data["nats.conf"]
	if size := set.Spec.VolumeClaimTemplates[0].Spec.Resources.Requests.Storage(); size.Value() != 100<<30 || !strings.Contains(conf, "max_memory_store: 67108864\n") {
		t.Error("a claim of", size, conf)
	}
	conf = get[corev1.ConfigMap](t, render(t, `nats: {persistence: {size: 1.5Gi}}`), "weir-nats").Data["nats.conf"]
	if !strings.Contains(conf, "max_file_store: 1449551462\n") { // 90 %
		t.Error(conf)
	}
}
