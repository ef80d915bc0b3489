package traces

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Tree is the spans of a trace as text: a line each, below its parent's and further in, those of one parent by their begin.
// client is the id of the span that the client said its request belongs to. A span whose parent is neither there nor the
// client's is an orphan, and a line says so.
func Tree(spans []Span, client string) string {
	spans = slices.Clone(spans)
	slices.SortStableFunc(spans, func(a, b Span) int { return cmp.Compare(a.Begin, b.Begin) })
	known := map[string]string{client: "the client's"} // links name their span by its name and number
	below, number := map[string][]*Span{}, map[string]int{}
	for i := range spans {
		s := &spans[i]
		number[s.Name]++
		known[s.ID] = fmt.Sprintf("%s #%d", s.Name, number[s.Name])
		below[s.Parent] = append(below[s.Parent], s)
	}
	var b strings.Builder
	var walk func(parent string, depth int)
	walk = func(parent string, depth int) {
		for _, s := range below[parent] {
			fmt.Fprintf(&b, "%s%s\n", strings.Repeat("  ", depth), s.line(known))
			walk(s.ID, depth+1)
		}
	}
	walk(client, 0)
	for i := range spans {
		if known[spans[i].Parent] == "" {
			fmt.Fprintf(&b, "ORPHAN %s\n", spans[i].line(known))
			walk(spans[i].ID, 1)
		}
	}
	return b.String()
}

// line is NAME | KIND | SERVICE, and what else matters of the span.
func (s *Span) line(names map[string]string) string {
	out := []string{s.Name, s.Kind, s.Service}
	if s.Failed {
		out = append(out, "failed")
	}
	if status := s.Attributes["weir.job.status"]; status != "" {
		out = append(out, "job "+status)
	}
	for _, l := range s.Links {
		out = append(out, "linked to "+cmp.Or(names[l], "a span that isn't there"))
	}
	return strings.Join(out, " | ")
}
