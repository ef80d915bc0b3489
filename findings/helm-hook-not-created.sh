#!/usr/bin/env bash
# A hook of a Helm chart that needs rights brings a ServiceAccount, a Role and a binding along as hooks of lower weight, with
# helm.sh/hook-delete-policy: hook-succeeded,hook-failed, so that nothing of it stays whatever becomes of it:
#
#   helm.sh/helm/v3 v3.20.2
#
# does that when the Job is made and fails: it is removed as failed, and those before it as succeeded. When the Job can't be made (a
# policy engine, a quota, a namespace that is just going), nothing is removed: neither policy is applied to any hook of the
# event. After an uninstallation the release is gone then, helm has no record of the rest, and the ServiceAccount is there with its rights until
# somebody removes them by hand.
#
# So bindings get the highest weight before the Job, what can fail for another reason a lower one than they have, and all a label to
# find them by.
#
# Installs it in a temporary folder, uninstalls a release with such hooks twice, with a client in the place of a cluster that
# writes down what is made and removed, and fails if that changes. Needs Go; takes a minute to five.
set -euo pipefail

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

cat >"$dir/go.mod" <<'GO'
module finding

go 1.26.0

require helm.sh/helm/v3 v3.20.2
GO
cat >"$dir/main.go" <<'GO'
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"helm.sh/helm/v3/pkg/action"
	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/kube"
	"helm.sh/helm/v3/pkg/kube/fake"
	"helm.sh/helm/v3/pkg/release"
	"helm.sh/helm/v3/pkg/storage"
	"helm.sh/helm/v3/pkg/storage/driver"
	"k8s.io/apimachinery/pkg/apis/meta/v1"
)

// cluster writes down what is made and removed.
type cluster struct {
	fake.PrintingKubeClient
	made, removed      []string
	notMade, notEnding bool // of the Job
}

// Build reads the one thing that this needs: "kind/name" in a comment at the start of the manifest.
func (c *cluster) Build(r io.Reader, _ bool) (kube.ResourceList, error) {
	text, err := io.ReadAll(r)
	name, _, _ := strings.Cut(strings.TrimPrefix(string(text), "# "), "\n")
	if name == "" {
		return nil, err
	}
	return kube.ResourceList{{Name: name}}, err
}

func (c *cluster) Create(list kube.ResourceList) (*kube.Result, error) {
	if c.notMade && list[0].Name == "Job" {
		return nil, errors.New("admission refused it")
	}
	c.made = append(c.made, list[0].Name)
	return &kube.Result{Created: list}, nil
}

func (c *cluster) WatchUntilReady(list kube.ResourceList, _ time.Duration) error {
	if c.notEnding && list[0].Name == "Job" {
		return errors.New("it failed")
	}
	return nil
}

func (c *cluster) Delete(list kube.ResourceList) (*kube.Result, []error) {
	for _, r := range list {
		c.removed = append(c.removed, r.Name)
	}
	return &kube.Result{Deleted: list}, nil
}

func (c *cluster) DeleteWithPropagationPolicy(list kube.ResourceList, _ v1.DeletionPropagation) (*kube.Result, []error) {
	return c.Delete(list)
}

func hook(name string, weight int) *release.Hook {
	return &release.Hook{
		Name: name, Kind: name, Manifest: "# " + name + "\n", Weight: weight, Events: []release.HookEvent{release.HookPostDelete},
		DeletePolicies: []release.HookDeletePolicy{release.HookSucceeded, release.HookFailed},
	}
}

func uninstall(c *cluster) (gone bool) {
	c.Out, c.LogOutput = io.Discard, io.Discard
	cfg := &action.Configuration{
		Releases: storage.Init(driver.NewMemory()), KubeClient: c, Capabilities: chartutil.DefaultCapabilities, Log: func(string, ...any) {},
	}
	err := cfg.Releases.Create(&release.Release{
		Name: "one", Version: 1, Namespace: "default", Info: &release.Info{Status: release.StatusDeployed}, Chart: &chart.Chart{Metadata: &chart.Metadata{Name: "one", Version: "1.0.0"}},
		Hooks: []*release.Hook{hook("ServiceAccount", -2), hook("ClusterRoleBinding", -1), hook("Job", 0)},
	})
	if err != nil {
		panic(err)
	}
	_, err = action.NewUninstall(cfg).Run("one")
	fmt.Println("  helm says:", err)
	_, err = cfg.Releases.Last("one")
	return errors.Is(err, driver.ErrReleaseNotFound)
}

func main() {
	failed, refused := &cluster{notEnding: true}, &cluster{notMade: true}
	fmt.Println("the Job is made, and fails:")
	gone := uninstall(failed)
	fmt.Printf("  made %v, removed %v, the release is gone: %t\n", failed.made, failed.removed, gone)
	fmt.Println("the Job can't be made:")
	goneToo := uninstall(refused)
	fmt.Printf("  made %v, removed %v, the release is gone: %t\n", refused.made, refused.removed, goneToo)
	if !gone || !goneToo || len(failed.removed) != 3 || len(refused.made) != 2 || len(refused.removed) != 0 {
		fmt.Println("CHANGED")
		os.Exit(1)
	}
}
GO
cd "$dir"
go mod tidy >/dev/null 2>&1
go run .
echo "as before: no hook of an event is removed when one of them can't be made"
