package main

import (
	"bytes"
	"strings"
	"testing"
)

// TestEMFPassesOn: the command passes its input on, and says what is wrong with its flags.
func TestEMFPassesOn(t *testing.T) {
	t.Setenv("OTEL_METRICS_EXPORTER", "none")
	const input = "plain\n{\"_aws\":{\"CloudWatchMetrics\":[]}}\nwithout an end"
	for _, c := range []struct {
		args []string
		says string
	}{
		{nil, ""},
		{[]string{"--pods", "/nowhere"}, "/nowhere"},
		{[]string{"--pods=/nowhere"}, "/nowhere"},
		{[]string{"function.log"}, "standard input"},
	} {
		var out, errs bytes.Buffer
		cmd := newEMF()
		cmd.SilenceUsage, cmd.SilenceErrors = true, true
		cmd.SetIn(strings.NewReader(input))
		cmd.SetOut(&out)
		cmd.SetErr(&errs)
		cmd.SetArgs(c.args)
		err := cmd.ExecuteContext(t.Context())
		switch {
		case c.says == "" && (err != nil || out.String() != input || errs.Len() > 0):
			t.Errorf("%v %q %s", err, out.String(), errs.String())
		case c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)):
			t.Errorf("%v: %v, want %s", c.args, err, c.says)
		}
	}
}
