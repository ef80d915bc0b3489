package items_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"

	"github.com/weir-dev/weir/internal/coding"
	"github.com/weir-dev/weir/internal/items"
)

// endless repeats a text up to a length, and then gives an end.
type endless struct {
	text, end string
	left      int64
	part      string // of what is next
	given     int64
}

func newEndless(begin, text, end string, length int64) *endless {
	return &endless{text: text, end: end, left: length, part: begin}
}

func (e *endless) Read(p []byte) (n int, err error) {
	for n < len(p) {
		if e.part == "" {
			switch {
			case e.left > 0:
				e.part = e.text
				e.left -= int64(len(e.text))
			case e.end != "":
				e.part, e.end = e.end, ""
			default:
				return n, io.EOF
			}
		}
		c := copy(p[n:], e.part)
		e.part = e.part[c:]
		n += c
	}
	e.given += int64(n)
	return n, nil
}

const (
	largeBytes = 64 << 20 // of an object; in short tests an eighth
	liveBound  = 6 << 20  // beside what was there before: an item's text is at most 1 MiB
)

func live() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestMemory: of a large object only a small part is in memory at any time.
func TestMemory(t *testing.T) {
	largeBytes := int64(largeBytes)
	if testing.Short() {
		largeBytes /= 8
	}
	filler := strings.Repeat("0123456789abcdef", 250)
	item := `{"id":1,"v":"` + filler + `"}`
	row := "1,\"" + filler + "\"\n"
	for _, c := range []struct {
		name   string
		r      *endless
		config items.Config
		items  int64
		kind   error
	}{
		{"JSON", newEndless("["+item, ","+item, "]", largeBytes), items.Config{}, largeBytes/int64(len(item)+1) + 2, nil},
		{
			"JSON at a pointer", newEndless(`{"x":["`, filler, `"],"items":[1]}`, largeBytes),
			items.Config{ItemsPointer: "/items"},
			1, nil,
		},
		{"JSON Lines", newEndless("", item+"\n", "", largeBytes), items.Config{InputType: items.JSONL}, largeBytes/int64(len(item)+1) + 1, nil},
		{"CSV", newEndless("id,v\n", row, "", largeBytes), items.Config{InputType: items.CSV}, largeBytes/int64(len(row)) + 1, nil},
		{"blanks", newEndless("[", strings.Repeat(" \n", 1000), "1]", largeBytes), items.Config{}, 1, nil},
		{"empty lines", newEndless("", strings.Repeat("\n", 1000), "1", largeBytes), items.Config{InputType: items.JSONL}, 1, nil},
		{"one large item", newEndless(`["`, filler, `"]`, largeBytes), items.Config{}, 0, items.ErrTooLarge},
		{"one large line", newEndless(`"`, filler, `"`, largeBytes), items.Config{InputType: items.JSONL}, 0, items.ErrTooLarge},
		{"one large row", newEndless("a\n\"", filler+"\n", `"`, largeBytes), items.Config{InputType: items.CSV}, 0, items.ErrTooLarge},
		{"one large name", newEndless(`{"`, filler, `"`, largeBytes), items.Config{ItemsPointer: "/items"}, 0, items.ErrTooLarge},
		{"many names of columns", newEndless("", "name,", "\n1", largeBytes), items.Config{InputType: items.CSV}, 0, items.ErrTooLarge},
	} {
		t.Run(c.name, func(t *testing.T) {
			before, n, worst := live(), int64(0), int64(0)
			probe := &probed{r: c.r, every: largeBytes / 8, probe: func() { worst = max(worst, live()-before) }}
			var last error
			for _, err := range items.Read(probe, c.config) {
				if err != nil {
					last = err
					continue
				}
				n++
			}
			if n != c.items || !errors.Is(last, c.kind) || (last != nil) != (c.kind != nil) {
				t.Errorf("%d items instead of %d, %v", n, c.items, last)
			}
			if worst > liveBound {
				t.Errorf("%d bytes are live", worst)
			}
			if c.kind != nil && c.r.given > liveBound {
				t.Errorf("%d bytes were read", c.r.given)
			}
		})
	}
	for _, name := range []string{"gzip", "zstd"} { // little that becomes much
		t.Run(name, func(t *testing.T) {
			bomb := compress(t, name, newEndless("["+item, ","+item, strings.Repeat(" ", 8<<20)+","+strings.Repeat("0", 8<<20), largeBytes/8))
			bound := liveBound + coding.Memory(name)
			before, n := live(), 0
			var last error
			for _, err := range items.Read(bytes.NewReader(bomb), items.Config{Coding: name}) {
				last = err
				if n++; n%100 == 0 && live()-before > bound {
					t.Errorf("%d bytes are live", live()-before)
				}
			}
			if n < 200 || len(bomb) > 1<<20 || !errors.Is(last, items.ErrTooLarge) {
				t.Errorf("%d items of %d bytes, %v", n, len(bomb), last)
			}
			runtime.KeepAlive(bomb)
		})
	}
}

// probed calls probe every so many bytes.
type probed struct {
	r           io.Reader
	every, left int64
	probe       func()
}

func (p *probed) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	if p.left -= int64(n); p.left <= 0 {
		p.left = p.every
		p.probe()
	}
	return n, err
}

func BenchmarkRead(b *testing.B) {
	var object, csvRow strings.Builder
	object.WriteString("{")
	names := []string{}
	for i := range 8 {
		name := fmt.Sprintf("column%d", i)
		names = append(names, name)
		if i > 0 {
			object.WriteString(",")
			csvRow.WriteString(",")
		}
		fmt.Fprintf(&object, "%q:%q", name, "value of it "+name)
		csvRow.WriteString("value of it " + name)
	}
	object.WriteString("}")
	const n = 10_000
	line, row := object.String(), csvRow.String()
	for _, c := range []struct {
		name, text string
		config     items.Config
	}{
		{"JSON", "[" + strings.Repeat(line+",", n-1) + line + "]", items.Config{}},
		{"JSONL", strings.Repeat(line+"\n", n), items.Config{InputType: items.JSONL}},
		{"CSV", strings.Repeat(row+"\n", n), items.Config{InputType: items.CSV, Headers: names}},
		{"CSV-quoted", strings.Repeat(`"`+strings.ReplaceAll(row, ",", `","`)+"\"\n", n), items.Config{InputType: items.CSV, Headers: names}},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(int64(len(c.text)))
			b.ReportAllocs()
			for b.Loop() {
				count := 0
				for _, err := range items.Read(strings.NewReader(c.text), c.config) {
					if err != nil {
						b.Fatal(err)
					}
					count++
				}
				if count != n {
					b.Fatal(count)
				}
			}
			b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "items/s")
		})
	}
}
