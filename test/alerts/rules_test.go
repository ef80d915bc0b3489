package alerts_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"sigs.k8s.io/yaml"

	"github.com/weir-dev/weir/internal/testkit"
)

const chart = "../../charts/weir"

// speed is by how much the durations of the rules are shortened.
const speed = 60

// thresholds are small, so that a cause takes seconds; seconds are not shortened by speed, as those of the metrics are not.
// The shares are the chart's own.
const thresholds = `
alerts:
  enabled: true
  thresholds: {oldestRecordSeconds: 8, capWaitSeconds: 2, drainSeconds: 5, backlogRecords: 60, notReadSeconds: 25, leasesLost: 1}
`

type rule struct {
	Alert       string            `json:"alert"`
	Expr        string            `json:"expr"`
	For         string            `json:"for,omitempty"`
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
}

type rules struct {
	Groups []struct {
		Name  string `json:"name"`
		Rules []rule `json:"rules"`
	} `json:"groups"`
}

// renderedRules are the chart's alerts, as fast as speed says.
func renderedRules(t *testing.T) (out rules) {
	t.Helper()
	helm := os.Getenv("WEIR_HELM")
	if helm == "" {
		helm = testkit.Tool(t, "../..", "kube", "helm")
	}
	for _, name := range []string{"files/alerts/weir.yaml", "templates/monitoring/alerts.yaml", "values.yaml"} {
		if _, err := os.Stat(filepath.Join(chart, name)); err != nil { // also so that a change of it runs the test again: helm reads it
			t.Fatal(err)
		}
	}
	home := t.TempDir()
	values := filepath.Join(home, "values.yaml")
	if err := os.WriteFile(values, []byte(thresholds), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), helm, "template", "weir", chart, "--kube-version", "1.35.0",
		"--show-only", "templates/monitoring/alerts.yaml", "--values", values)
	cmd.Env = append(os.Environ(), "HELM_CACHE_HOME="+home, "HELM_CONFIG_HOME="+home, "HELM_DATA_HOME="+home)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	text, err := cmd.Output()
	if err != nil {
		t.Fatal(err, stderr.String())
	}
	var rendered struct {
		Spec rules `json:"spec"`
	}
	for document := range strings.SplitSeq("\n"+string(text), "\n---") { // Helm begins with an empty one
		if err := yaml.Unmarshal([]byte(document), &rendered); err != nil {
			t.Fatal(err)
		}
	}
	if len(rendered.Spec.Groups) == 0 {
		t.Fatalf("the chart has no alerts: %s", text)
	}
	for _, g := range rendered.Spec.Groups {
		for i := range g.Rules {
			g.Rules[i].faster(t)
		}
	}
	return rendered.Spec
}

var (
	ofRange = regexp.MustCompile(`\[[^\]]*\]`)
	// otherTimes are durations in other places; no rule has one yet. What predict_linear looks ahead is a threshold.
	otherTimes = regexp.MustCompile(`\boffset\b|@|\btime\(|\btimestamp\(`)
)

func (r *rule) faster(t *testing.T) {
	t.Helper()
	if otherTimes.MatchString(r.Expr) {
		t.Fatalf("%s has a time that this test doesn't shorten: adapt it\n%s", r.Alert, r.Expr)
	}
	r.Expr = ofRange.ReplaceAllStringFunc(r.Expr, func(s string) string {
		span, step, sub := strings.Cut(s[1:len(s)-1], ":")
		span = shortened(t, span, time.Second)
		if sub {
			span += ":" + shortened(t, step, time.Second/10)
		}
		return "[" + span + "]"
	})
	if r.For != "" {
		r.For = shortened(t, r.For, time.Second)
	}
}

// shortened is the duration as fast as speed says. One of less than an evaluation would mean nothing; the steps of a subquery may be less.
func shortened(t *testing.T, text string, least time.Duration) string {
	t.Helper()
	d, err := model.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	short := model.Duration(time.Duration(d) / speed)
	if time.Duration(short) < least {
		t.Fatalf("%s becomes %s, which is too little: choose a smaller speed", text, short)
	}
	return short.String()
}
