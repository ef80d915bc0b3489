package alerts_test

import (
	"context"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/weir-dev/weir/internal/testkit"
	"github.com/weir-dev/weir/internal/testkit/processes"
)

const (
	scrapeEvery = "1s"
	evalEvery   = "1s"
	// lookback is Prometheus' own five minutes, as fast as the rules.
	lookback = "5s"
)

// target is a page of metrics, with what the chart's PodMonitors say of its pod.
type target struct{ namespace, job, pod, address string }

// prometheus is one that reads targets, which come and go, and evaluates the rules.
type prometheus struct {
	testkit.Prometheus
	t   *testing.T
	dir string

	mu      sync.Mutex
	targets []target
}

func startPrometheus(t *testing.T, r rules) *prometheus {
	t.Helper()
	dir := t.TempDir()
	p := &prometheus{t: t, dir: dir}
	rules := filepath.Join(dir, "rules.yaml")
	text, err := yaml.Marshal(r)
	if err == nil {
		err = os.WriteFile(rules, text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	p.write()
	config, err := yaml.Marshal(map[string]any{
		"global":     map[string]any{"scrape_interval": scrapeEvery, "scrape_timeout": scrapeEvery, "evaluation_interval": evalEvery},
		"rule_files": []string{rules},
		"scrape_configs": []map[string]any{{
			"job_name":        "pods",
			"file_sd_configs": []map[string]any{{"files": []string{filepath.Join(dir, "targets.json")}, "refresh_interval": "1s"}},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	p.Prometheus = processes.Prometheus(t, "../..", config, "--query.lookback-delta="+lookback)
	return p
}

// add makes tg a target.
func (p *prometheus) add(tg target) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.targets = append(p.targets, tg)
	p.write()
}

// remove takes the pod from what is discovered. Prometheus looks every five seconds, which would be five minutes of the rules:
// until then the pod is better there.
func (p *prometheus) remove(pod string) {
	p.mu.Lock()
	p.targets = slices.DeleteFunc(p.targets, func(tg target) bool { return tg.pod == pod })
	p.write()
	p.mu.Unlock()
	p.until(p.t, pod+" is not read any more", `absent(up{pod="`+pod+`"})`)
}

func (p *prometheus) write() {
	type group struct {
		Targets []string          `json:"targets"`
		Labels  map[string]string `json:"labels"`
	}
	groups := []group{}
	for _, tg := range p.targets {
		groups = append(groups, group{[]string{tg.address}, map[string]string{
			"namespace": tg.namespace, "job": tg.job, "pod": tg.pod, "container": strings.TrimPrefix(tg.job, "weir-"),
		}})
	}
	text, err := json.Marshal(groups)
	if err == nil {
		err = os.WriteFile(filepath.Join(p.dir, ".targets"), text, 0o600)
	}
	if err == nil { // at once: Prometheus watches the folder
		err = os.Rename(filepath.Join(p.dir, ".targets"), filepath.Join(p.dir, "targets.json"))
	}
	if err != nil {
		p.t.Error(err)
	}
}

// query returns the labels of the series of an instant vector that are not 0.
func (p *prometheus) query(q string) (out []map[string]string, err error) {
	found, err := p.Query(context.Background(), q)
	for _, s := range found {
		if s.Value != 0 {
			out = append(out, s.Metric)
		}
	}
	return out, err
}

// firing are the alerts that fire now.
func (p *prometheus) firing() ([]map[string]string, error) {
	return p.query(`ALERTS{alertstate="firing"}`)
}

// fired are all that ever did.
func (p *prometheus) fired() ([]map[string]string, error) {
	return p.query(`max_over_time(ALERTS{alertstate="firing"}[1h])`)
}

// until waits until the query has an answer.
func (p *prometheus) until(t *testing.T, what, q string) {
	t.Helper()
	within(t, what, func() string {
		found, err := p.query(q)
		if err == nil && len(found) == 0 {
			return "nothing for " + q
		}
		return said(err)
	})
}

// has reports whether an alert has all of the labels.
func has(alert, labels map[string]string) bool {
	for k, v := range labels {
		if alert[k] != v {
			return false
		}
	}
	return true
}

func shown(alerts []map[string]string) string {
	var out []string
	for _, a := range alerts {
		var labels []string
		for _, k := range slices.Sorted(maps.Keys(a)) {
			if k != "alertname" && k != "__name__" && k != "alertstate" && k != "severity" {
				labels = append(labels, k+"="+a[k])
			}
		}
		out = append(out, a["alertname"]+"{"+strings.Join(labels, ", ")+"}")
	}
	slices.Sort(out)
	return strings.Join(out, "\n")
}

func said(err error) string {
	if err != nil {
		return err.Error()
	}
	return ""
}

// patience is how long a test waits for what must come: the longest way is two looks at a queue, which the controller
// takes every ten seconds, and twenty minutes of the rules, and other tests keep the machine busy.
const patience = 2 * time.Minute

// within waits until missing says nothing.
func within(t *testing.T, what string, missing func() string) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		lacks := missing()
		if lacks == "" {
			return
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("waited %s in vain until %s: %s", patience, what, lacks)
		}
	}
}
