// Package e2e_test installs Weir into a real Kubernetes with real Knative Serving and shows that it works there:
// `make e2e`. The cluster is the throw-away one of hack/cluster, or an existing one with E2E_KUBECONFIG; the tests
// use it with the programs that people use: helm, kubectl, port-forward, weir dlq.
package e2e_test

import (
	"fmt"
	"os"
	"testing"
)

var env environment

func TestMain(m *testing.M) {
	if os.Getenv("E2E_KUBECONFIG") == "" {
		fmt.Println("!!! SKIPPED: test/e2e needs a cluster, so NOTHING of Kubernetes was tried here: run `make e2e`")
		os.Exit(0)
	}
	var err error
	if env, err = fromEnv(); err != nil {
		fmt.Fprintln(os.Stderr, "test/e2e:", err)
		os.Exit(2)
	}
	os.Exit(m.Run())
}

// TestCluster is one story: each part finds what the ones before it have left.
func TestCluster(t *testing.T) {
	env.collector = startCollector(t)
	if !t.Run("Install", testInstall) {
		t.Fatal("without an installation there is nothing to try")
	}
	t.Run("Metrics", testMetrics)
	t.Run("ScaleFromZero", testScaleFromZero)
	t.Run("Jobs", testJobs)
	t.Run("StateMachines", testStateMachines)
	t.Run("ClusterJobs", testClusterJobs)
	t.Run("Objects", testObjects)
	t.Run("Traces", testTraces)
	t.Run("Caps", testCaps)
	t.Run("Memory", testMemory)
	t.Run("LiveChanges", testLiveChanges)
	t.Run("RefusedResources", testRefusedResources)
	t.Run("ExplainedResources", testExplainedResources)
	t.Run("Defaults", testDefaults)
	t.Run("DeleteQueue", testDeleteQueue)
	t.Run("Drained", testDrained)
	t.Run("Classes", testClasses)
	t.Run("Review", testReview)
	t.Run("Disruptions", testDisruptions)
	t.Run("ChangeWithoutNATS", testChangeWithoutNATS)
	t.Run("RollingUpdate", testRollingUpdate)
	t.Run("MoveNATS", testMoveNATS)
	t.Run("UninstallAndUpgrade", testUninstallAndUpgrade)
	t.Run("Skaffold", testSkaffold)
}
