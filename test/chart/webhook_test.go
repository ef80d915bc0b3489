package chart_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
)

// TestWebhook: the API server trusts the certificate that the controller has, for the name by which it calls it, and gets to the
// controller's port. Without the value there is none of it.
func TestWebhook(t *testing.T) {
	docs := render(t, `controller: {webhook: {enabled: true}, watchNamespaces: [shop]}`)
	hooks := get[admissionv1.ValidatingWebhookConfiguration](t, docs, "weir-webhook-"+namespace).Webhooks
	if len(hooks) != 1 || *hooks[0].FailurePolicy != admissionv1.Ignore || hooks[0].NamespaceSelector.MatchExpressions[0].Values[0] != "shop" {
		t.Fatalf("%+v", hooks)
	}
	call := hooks[0].ClientConfig
	service := get[corev1.Service](t, docs, call.Service.Name)
	secret := get[corev1.Secret](t, docs, "weir-webhook")
	pair, err := tls.X509KeyPair(secret.Data["tls.crt"], secret.Data["tls.key"])
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if block, _ := pem.Decode(call.CABundle); block == nil || !pool.AppendCertsFromPEM(call.CABundle) {
		t.Fatalf("caBundle: %s", call.CABundle)
	}
	if _, err := pair.Leaf.Verify(x509.VerifyOptions{DNSName: service.Name + "." + namespace + ".svc", Roots: pool}); err != nil {
		t.Error(err)
	}

	template := get[appsv1.Deployment](t, docs, "weir-controller").Spec.Template
	container := template.Spec.Containers[0]
	found := 0
	for _, p := range container.Ports {
		if p.Name == service.Spec.Ports[0].TargetPort.StrVal && p.ContainerPort == 9443 {
			found++
		}
	}
	for _, e := range container.Env {
		if e.Name == "WEIR_WEBHOOK_LISTEN" && e.Value == ":9443" {
			found++
		}
	}
	for _, v := range template.Spec.Volumes {
		if v.Secret != nil && v.Secret.SecretName == secret.Name {
			found++
		}
	}
	for _, rule := range get[networkingv1.NetworkPolicy](t, docs, "weir-controller").Spec.Ingress {
		if rule.Ports[0].Port.IntValue() == 9443 && len(rule.From) == 0 {
			found++
		}
	}
	if found != 4 {
		t.Errorf("of the container's port, its variable, its volume and the policy there are %d", found)
	}

	managed := render(t, `controller: {webhook: {enabled: true, failurePolicy: Fail, certManager: {issuerRef: {name: ca}}}}`)
	cert := get[certificate](t, managed, "weir-webhook")
	hook := get[admissionv1.ValidatingWebhookConfiguration](t, managed, "weir-webhook-"+namespace)
	if cert.Spec.SecretName != "weir-webhook" || hook.Annotations["cert-manager.io/inject-ca-from"] != namespace+"/"+cert.Name || hook.Webhooks[0].ClientConfig.CABundle != nil {
		t.Errorf("cert-manager: %+v, %+v", cert, hook)
	}
	if lookup[corev1.Secret](managed, "weir-webhook") != nil {
		t.Error("cert-manager: the chart makes a certificate too")
	}
	if out, err := helm(t, "template", "weir", chart, "--namespace", namespace, "--kube-version", kubeVersion); err != nil || strings.Contains(out, "webhook") {
		t.Errorf("by default there is one; %v", err)
	}
}
