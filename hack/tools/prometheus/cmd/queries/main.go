// Command queries says what expressions of PromQL ask for. It reads a JSON array of expressions and writes an array of
// the same length: of each its selectors, a metric with the labels that it is filtered by, and the labels by which it groups
// and joins. test/chart holds dashboards and alerts to what is exported with it. It is here and not there because the
// parser would bring Prometheus' dependencies into the product's go.mod.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// query is what one expression asks for.
type query struct {
	Error     string     `json:"error,omitempty"`
	Selectors []selector `json:"selectors"`
	Labels    []string   `json:"labels"`
	Replaced  []string   `json:"replaced"` // labels that label_replace or label_join makes
}

type selector struct {
	Metric string   `json:"metric"`
	Labels []string `json:"labels"`
}

func main() {
	var expressions []string
	err := json.NewDecoder(os.Stdin).Decode(&expressions)
	if err == nil {
		p := parser.NewParser(parser.Options{})
		out := make([]query, len(expressions))
		for i, e := range expressions {
			out[i] = read(p, e)
		}
		err = json.NewEncoder(os.Stdout).Encode(out)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "queries:", err)
		os.Exit(1)
	}
}

func read(p parser.Parser, expression string) query {
	var q query
	e, err := p.ParseExpr(expression)
	if err != nil {
		q.Error = err.Error()
		return q
	}
	parser.Inspect(e, func(n parser.Node, _ []parser.Node) error {
		switch n := n.(type) {
		case *parser.VectorSelector:
			s := selector{Metric: n.Name}
			for _, m := range n.LabelMatchers {
				if m.Name != labels.MetricName {
					s.Labels = append(s.Labels, m.Name)
				}
			}
			q.Selectors = append(q.Selectors, s)
		case *parser.AggregateExpr:
			q.Labels = append(q.Labels, n.Grouping...)
		case *parser.BinaryExpr:
			if n.VectorMatching != nil {
				q.Labels = append(q.Labels, slices.Concat(n.VectorMatching.MatchingLabels, n.VectorMatching.Include)...)
			}
		case *parser.Call:
			if strings.HasPrefix(n.Func.Name, "label_") {
				if to, ok := n.Args[1].(*parser.StringLiteral); ok {
					q.Replaced = append(q.Replaced, to.Val)
				}
			}
		}
		return nil
	})
	return q
}
