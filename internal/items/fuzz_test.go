package items_test

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/weir-dev/weir/internal/items"
	"github.com/weir-dev/weir/internal/jsontree"
)

// FuzzRead: whatever the object, nothing panics, what is read doesn't depend on the pieces, and a JSON array has the elements
// that jsontree finds.
func FuzzRead(f *testing.F) {
	for _, text := range []string{
		``, `[]`, `[1, {"a":[2,"]"]}, "x\"\\"]`, `{"a":{"b":[1]}}`, "1\n{}\r\n\n", "a,b\n\"1\n2\",\\\"3\n\n", "\ufeffa\n\xff",
		`[` + strings.Repeat(" ", 50) + `]`, `["` + strings.Repeat("x", 60) + `"]`, strings.Repeat("1", 70) + "\r\n", "a\n\"" + strings.Repeat("\r\n", 70),
		"\x1f\x8b\x08", "\x28\xb5\x2f\xfd",
	} {
		for kind := range byte(8) {
			f.Add([]byte(text), kind)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte, kind byte) {
		c := []items.Config{
			{},
			{ItemsPointer: "/a/b"},
			{InputType: items.JSONL},
			{InputType: items.CSV},
			{InputType: items.CSV, Delimiter: ' ', Headers: []string{"a", "", "a"}},
			{Coding: "gzip"},
			{Coding: "zstd"},
			{ItemsPointer: "/0"},
		}[kind%8]
		c.MaxItemBytes = 10
		var want []string
		var wantErr string
		for _, how := range []string{"at once", "byte by byte", "by halves", "the end with data", "sometimes nothing"} {
			got, err := read(readers(data)[how], c)
			message := fmt.Sprint(err)
			if how == "at once" {
				want, wantErr = got, message
			}
			if !slices.Equal(got, want) || message != wantErr {
				t.Errorf("%s: %q, %s; at once: %q, %s", how, got, message, want, wantErr)
			}
		}
		if kind%8 != 0 || bytes.HasPrefix(data, []byte("\ufeff")) {
			return
		}
		c.MaxItemBytes = items.MaxItemBytes
		got, err := read(bytes.NewReader(data), c)
		whole, wholeErr := jsontree.Parse(data)
		list, isArray := whole.([]any)
		if (err == nil) != (wholeErr == nil && isArray) && !strings.Contains(fmt.Sprint(wholeErr), "depth") {
			t.Errorf("read: %v, parsed: %v", err, wholeErr)
		}
		if err == nil && wholeErr == nil && "["+strings.Join(got, ",")+"]" != text(list) {
			t.Errorf("%q instead of %s", got, text(list))
		}
	})
}

// TestCSVAsWritten: what encoding/csv writes is read as it was, if backslashes are doubled.
func TestCSVAsWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		delimiter := rapid.SampledFrom([]rune(",|; \t")).Draw(t, "delimiter")
		columns := rapid.IntRange(1, 4).Draw(t, "columns")
		value := rapid.StringOf(rapid.SampledFrom([]rune("ab,|; \t\"\\\né")))
		rows := rapid.SliceOf(rapid.SliceOfN(value, columns, columns)).Draw(t, "rows")
		var b strings.Builder
		w := csv.NewWriter(&b)
		w.Comma, w.UseCRLF = delimiter, rapid.Bool().Draw(t, "crlf")
		want := []string{}
		names := []string{"c0", "c1", "c2", "c3"}[:columns]
		for _, row := range rows {
			o := jsontree.NewObject(columns)
			escaped := make([]string, columns)
			for i, v := range row {
				escaped[i] = strings.ReplaceAll(v, `\`, `\\`)
				o.Set(names[i], v)
			}
			if columns == 1 && row[0] == "" {
				continue // an empty row
			}
			if err := w.Write(escaped); err != nil {
				t.Fatal(err)
			}
			want = append(want, text(o))
		}
		w.Flush()
		got, err := read(strings.NewReader(b.String()), items.Config{InputType: items.CSV, Headers: names, Delimiter: delimiter})
		if err != nil || !slices.Equal(got, want) {
			t.Fatalf("%q is %q instead of %q, %v", b.String(), got, want, err)
		}
	})
}
