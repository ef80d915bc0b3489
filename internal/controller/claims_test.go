package controller

import (
	"fmt"
	"testing"

	"github.com/weir-dev/weir/api/v1alpha1"
)

func claimed(namespace, class, by string) *v1alpha1.Queue {
	q := &v1alpha1.Queue{}
	q.Namespace, q.Name, q.Spec.Class, q.Status.ObservedBy = namespace, "q", class, by
	return q
}

// TestServes: one release serves the resources of a class in a namespace, and takes no other's.
func TestServes(t *testing.T) {
	blue := Release{Namespace: "weir", Name: "blue", Class: "weir"}
	for name, c := range map[string]struct {
		of     *v1alpha1.Queue
		others []*v1alpha1.Queue
		take   []string
		want   string
	}{
		"nobody's":                               {of: claimed("shop", "weir", ""), want: "true "},
		"nobody's, without a class":              {of: claimed("shop", "", ""), want: "true "},
		"its own":                                {of: claimed("shop", "weir", "weir/blue"), want: "true "},
		"of another class":                       {of: claimed("shop", "fast", ""), want: "false "},
		"its own, now of another class":          {of: claimed("shop", "fast", "weir/blue"), want: "false "},
		"another's":                              {of: claimed("shop", "weir", "weir/green"), want: "false weir/green"},
		"another's, to be taken over":            {of: claimed("shop", "weir", "weir/green"), take: []string{"weir/red", "weir/green"}, want: "true "},
		"nobody's, where another serves":         {of: claimed("shop", "weir", ""), others: []*v1alpha1.Queue{claimed("shop", "weir", "weir/green")}, want: "false weir/green"},
		"the same, where it is to be taken over": {of: claimed("shop", "weir", ""), others: []*v1alpha1.Queue{claimed("shop", "weir", "weir/green")}, take: []string{"weir/green"}, want: "true "},
		"nobody's, another serves elsewhere":     {of: claimed("shop", "weir", ""), others: []*v1alpha1.Queue{claimed("office", "weir", "weir/green")}, want: "true "},
		"nobody's, another serves another class": {of: claimed("shop", "weir", ""), others: []*v1alpha1.Queue{claimed("shop", "fast", "weir/green")}, want: "true "},
		"nobody's, both serve, the smaller": {
			of: claimed("shop", "weir", ""), others: []*v1alpha1.Queue{claimed("shop", "weir", "weir/green"), claimed("shop", "weir", "weir/blue")}, want: "true ",
		},
		"nobody's, both serve, the larger": {
			of: claimed("shop", "weir", ""), others: []*v1alpha1.Queue{claimed("shop", "weir", "acme/weir"), claimed("shop", "weir", "weir/blue")}, want: "false acme/weir",
		},
		"its own, where another serves": {of: claimed("shop", "weir", "weir/blue"), others: []*v1alpha1.Queue{claimed("shop", "weir", "acme/weir")}, want: "true "},
	} {
		t.Run(name, func(t *testing.T) {
			r := blue
			r.TakeOver = c.take
			all := []withStatus{c.of}
			for _, q := range c.others {
				all = append(all, q)
			}
			holders, ours := r.held(all)
			ok, other := r.serves(c.of, holders, ours)
			if got := fmt.Sprintf("%t %s", ok, other); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}
