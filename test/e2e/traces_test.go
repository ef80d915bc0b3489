package e2e_test

import (
	"context"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/weir-dev/weir/test/traces"
)

// startCollector is there from the installation on, where pods can reach it: at the node's address. Then no stage need be
// restarted for testTraces. It returns nil, and testTraces is skipped, where this process isn't on the node.
func startCollector(t *testing.T) *traces.Collector {
	t.Helper()
	if !env.onNode {
		return nil
	}
	return traces.StartCollector(t, nodeAddress(t))
}

func nodeAddress(t testing.TB) string {
	t.Helper()
	return kubectl(t, "get", "nodes", "-o", `jsonpath={.items[0].status.addresses[?(@.type=="InternalIP")].address}`)
}

// testTraces: an order and a job, each tried twice, dead and redriven with `weir dlq redrive`, are one trace each, from the
// client's span over two gateways, two dispatchers, Knative and the database to the functions' reports. What NetworkPolicies let
// out is held by test/chart: the throw-away cluster doesn't enforce them.
func testTraces(t *testing.T) {
	if env.collector == nil {
		t.Skip("!!! SKIPPED: pods can't reach this process, so NOTHING read the traces")
	}
	// The job's function is in this process, and so is `weir dlq`: it has this environment.
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", env.collector.URL)
	t.Setenv("OTEL_METRICS_EXPORTER", "none")
	t.Setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")
	gateway := forward(t, weirNamespace, "svc/weir-gateway", 80)
	// The function's reports go to the gateway as this process reaches it: the cluster's names are not known here.
	transport := &http.Transport{DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, gateway)
	}}
	t.Cleanup(transport.CloseIdleConnections)
	worker, workerURL := traces.StartWorker(t, nodeAddress(t), &http.Client{Transport: transport})
	apply(t, traces.Manifests(traces.Parts{
		Writer: env.image("order-writer"), Worker: workerURL, Collector: env.collector.URL,
		Heartbeat: 20 * time.Second, // spans are on their way for 5 s: OpenTelemetry's default
	}))
	for _, o := range []string{"queues.weir.dev/" + traces.Orders, "queues.weir.dev/" + traces.Jobs} {
		kubectl(t, "-n", sampleNamespace, "annotate", "--overwrite", o, "weir.dev/drop-records=true")
	}
	for _, name := range []string{traces.Orders, traces.Jobs} { // after those that use them
		deleteAfter(t, "queues.weir.dev", name)
	}
	deleteAfter(t, "apis.weir.dev", "traced")
	deleteAfter(t, "ksvc", "traced-writer")
	for _, name := range []string{traces.Orders, traces.Jobs} {
		deleteAfter(t, "esm", name)
	}
	waitReady(t, "ksvc/traced-writer", "queues.weir.dev/"+traces.Orders, "queues.weir.dev/"+traces.Jobs,
		"esm/"+traces.Orders, "esm/"+traces.Jobs, "apis.weir.dev/traced")
	start := time.Now()
	traces.Play(t, traces.System{
		Gateway: "http://" + gateway, DB: database(t), Worker: worker, Collector: env.collector, Patience: patience,
		Redrive: func(queue string) error {
			dlq(t, "redrive", queue)
			return nil
		},
	})
	t.Logf("an order and a job, over a retry and a redrive, are one trace each: %d spans, %s", len(env.collector.All()), time.Since(start).Round(time.Second))
}
