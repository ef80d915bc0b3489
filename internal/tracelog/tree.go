package tracelog

import (
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Of what is printed, unless all of it is asked for.
const (
	barWidth   = 24
	maxName    = 60 // characters of a span's name with its branch
	maxShown   = 140
	linksShown = 3
)

// Print writes a trace as a tree: of each span when it began, how long it took and a bar of both, its kind, and who made
// it; below it, of its attributes those that matter, or all; its events and its links.
func (t *Trace) Print(w io.Writer, all bool) error {
	p := printer{trace: t, all: all}
	s := t.summary()
	fmt.Fprintf(&p.out, "trace %s: %s, %d spans", clean(t.ID, maxShown), took(seconds(s.Duration)), s.Spans)
	if s.Failed > 0 {
		fmt.Fprintf(&p.out, ", %d failed", s.Failed)
	}
	p.out.WriteString("\n")
	if len(t.Spans) > 0 {
		p.begin, p.whole = t.Spans[0].Start, t.end().Sub(t.Spans[0].Start)
		fmt.Fprintf(&p.out, "begun %s\n\n", p.begin.UTC().Format(time.RFC3339Nano))
		p.layOut()
		for i := range p.lines {
			p.print(&p.lines[i])
		}
	}
	if t.LeftOut > 0 {
		fmt.Fprintf(&p.out, "\n%d more spans were left out\n", t.LeftOut)
	}
	_, err := io.WriteString(w, p.out.String())
	return err
}

type printer struct {
	trace *Trace
	all   bool
	begin time.Time
	whole time.Duration
	lines []row
	width int // of the names
	out   strings.Builder
}

// row is a span in its place.
type row struct {
	span  *Span
	name  string // with its branch
	under string // what stands before the lines below it
}

// layOut puts the spans in their order: each after its parent, those of one parent by their start. Spans whose parent isn't
// there are at the top; so are, at the end, those that are each other's parents.
func (p *printer) layOut() {
	known, below := map[string]bool{}, map[string][]*Span{}
	for i := range p.trace.Spans {
		known[p.trace.Spans[i].ID] = true
	}
	var roots []*Span
	for i := range p.trace.Spans {
		s := &p.trace.Spans[i]
		if s.Parent == "" || s.Parent == s.ID || !known[s.Parent] {
			roots = append(roots, s)
		} else {
			below[s.Parent] = append(below[s.Parent], s)
		}
	}
	seen := map[string]bool{}
	var walk func(s *Span, first, rest string)
	walk = func(s *Span, first, rest string) {
		if seen[s.ID] {
			return
		}
		seen[s.ID] = true
		children := slices.DeleteFunc(slices.Clone(below[s.ID]), func(c *Span) bool { return seen[c.ID] })
		under := rest
		if len(children) > 0 {
			under += "│"
		}
		p.lines = append(p.lines, row{s, first + clean(s.Name, maxName-utf8.RuneCountInString(first)), under})
		for i, c := range children {
			if i == len(children)-1 {
				walk(c, rest+"└─ ", rest+"   ")
			} else {
				walk(c, rest+"├─ ", rest+"│  ")
			}
		}
	}
	for _, s := range roots {
		walk(s, "", "")
	}
	for i := range p.trace.Spans {
		walk(&p.trace.Spans[i], "", "")
	}
	for i := range p.lines {
		p.width = max(p.width, utf8.RuneCountInString(p.lines[i].name))
	}
}

func (p *printer) print(r *row) {
	s := r.span
	by := clean(s.Service, maxShown)
	if s.Scope != "" {
		by += " " + clean(path.Base(s.Scope), maxShown)
	}
	if s.Failed {
		by += "  FAILED"
		if s.Status != "" {
			by += ": " + clean(s.Status, p.length())
		}
	}
	p.line(strings.TrimRight(fmt.Sprintf("%s  %10s  %10s  %s  %-8s  %s",
		pad(r.name, p.width), "+"+took(s.Start.Sub(p.begin)), took(s.End.Sub(s.Start)), p.bar(s), clean(s.Kind, 8), by), " "))
	under := pad(r.under, utf8.RuneCountInString(r.under)+4)
	for _, text := range s.Attributes.texts(p.all, p.length()) {
		p.line(under + text)
	}
	for _, e := range s.Events {
		texts := []string{"event +" + took(e.Time.Sub(p.begin)), clean(e.Name, p.length())}
		for _, a := range e.Attributes.texts(true, p.length()) {
			if p.all || !strings.HasPrefix(a, "exception.stacktrace=") {
				texts = append(texts, a)
			}
		}
		p.line(under + strings.Join(texts, " "))
	}
	for i, l := range s.Links {
		if i == linksShown && !p.all && len(s.Links) > linksShown+1 {
			p.line(fmt.Sprintf("%sand %d more links", under, len(s.Links)-linksShown))
			break
		}
		texts := append([]string{"link", clean(l.Trace, maxShown)}, l.Attributes.texts(true, p.length())...)
		p.line(under + strings.Join(texts, " "))
	}
	if s.LeftOut > 0 {
		p.line(fmt.Sprintf("%s%d attributes, events or links were left out", under, s.LeftOut))
	}
}

func (p *printer) line(text string) { p.out.WriteString(text + "\n") }

// length is how many characters of a text are shown.
func (p *printer) length() int {
	if p.all {
		return maxValueBytes + 1
	}
	return maxShown
}

// bar is where a span is in the whole trace.
func (p *printer) bar(s *Span) string {
	if p.whole <= 0 {
		return strings.Repeat("█", barWidth)
	}
	column := func(at time.Time) int {
		return max(0, min(barWidth, int(float64(at.Sub(p.begin))/float64(p.whole)*barWidth)))
	}
	from := min(column(s.Start), barWidth-1)
	to := max(column(s.End), from+1)
	return strings.Repeat(" ", from) + strings.Repeat("█", to-from) + strings.Repeat(" ", barWidth-to)
}

// texts are attributes as KEY=VALUE, those that matter or all, by their keys.
func (a Attributes) texts(all bool, length int) []string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(a)) {
		if all || matters(k) {
			out = append(out, clean(k, maxShown)+"="+clean(a[k], length))
		}
	}
	return out
}

// matters reports whether an attribute says something about this very operation. The rest is the same of all of a kind.
func matters(key string) bool {
	switch key {
	case "http.route", "http.response.status_code", "http.request.resend_count", "error.type", "messaging.batch.message_count",
		"faas.name", "faas.invoked_name", "faas.coldstart", attrEventID, "db.query.text", "pgx.rows_affected", "pgx.sql_state":
		return true
	}
	return strings.HasPrefix(key, "weir.")
}

// clean is a text that may come from anywhere as it may reach a terminal: in one line, what isn't printable escaped, of at
// most so many characters.
func clean(s string, length int) string {
	var b strings.Builder
	n, space := 0, false
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		i += size
		text := string(r)
		switch {
		case r == ' ', r == '\t', r == '\n', r == '\r':
			space = b.Len() > 0
			continue
		case r == utf8.RuneError && size == 1:
			text = fmt.Sprintf(`\x%02x`, s[i-1])
		case !unicode.IsPrint(r):
			text = strings.Trim(strconv.QuoteRuneToASCII(r), "'")
		}
		if space {
			text, space = " "+text, false
		}
		if n += utf8.RuneCountInString(text); n > length {
			return b.String() + "…"
		}
		b.WriteString(text)
	}
	return b.String()
}

func pad(s string, width int) string {
	return s + strings.Repeat(" ", max(0, width-utf8.RuneCountInString(s)))
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// took is a duration in three digits or so.
func took(d time.Duration) string {
	switch {
	case d < 0:
		return "-" + took(-max(d, -time.Duration(1<<62)))
	case d == 0:
		return "0 ms"
	case d < time.Millisecond:
		return fmt.Sprintf("%.2f ms", float64(d)/float64(time.Millisecond))
	case d < time.Second:
		return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
	case d < time.Minute:
		return fmt.Sprintf("%.2f s", d.Seconds())
	}
	return d.Round(time.Second).String()
}

// PrintList writes traces as a table.
func PrintList(w io.Writer, list []Summary) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%-32s  %-12s  %9s  %5s  %6s  %s\n", "TRACE", "BEGUN", "TOOK", "SPANS", "FAILED", "ROOT")
	for i := range list {
		s := &list[i]
		fmt.Fprintf(&b, "%-32s  %-12s  %9s  %5d  %6d  %s\n", clean(s.ID, maxName), s.Start.UTC().Format("15:04:05.000"), took(seconds(s.Duration)),
			s.Spans, s.Failed, strings.TrimSpace(clean(s.Root, maxName)+"  "+clean(s.Service, maxName)))
	}
	_, err := io.WriteString(w, b.String())
	return err
}
