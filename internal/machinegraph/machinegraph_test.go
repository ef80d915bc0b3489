package machinegraph_test

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/weir-dev/weir/internal/machinegraph"
	"github.com/weir-dev/weir/internal/statelang"
)

var update = flag.Bool("update", false, "write the golden files")

func draw(t testing.TB, definition string) []byte {
	t.Helper()
	m, err := statelang.Parse([]byte(definition), statelang.Options{})
	if err != nil {
		t.Fatal(err)
	}
	svg, err := machinegraph.SVG(m)
	if err != nil {
		t.Fatal(err)
	}
	return svg
}

// TestGolden: a machine with all kinds of states and ways is drawn as it was, byte for byte.
func TestGolden(t *testing.T) {
	definition, err := os.ReadFile("testdata/all.json")
	if err != nil {
		t.Fatal(err)
	}
	got := draw(t, string(definition))
	if again := draw(t, string(definition)); !bytes.Equal(got, again) {
		t.Error("drawn again, it is another picture")
	}
	if *update {
		if err := os.WriteFile("testdata/all.svg", got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("testdata/all.svg")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("testdata/all.svg is not what is drawn now (-update writes it)")
	}
}

// TestEscaped: what a definition says is text of the picture, whatever it is.
func TestEscaped(t *testing.T) {
	name := "</text><script>alert('&')</script>\u0001\""
	quoted, err := json.Marshal(name)
	if err != nil {
		t.Fatal(err)
	}
	svg := draw(t, fmt.Sprintf(`{"StartAt": "C", "States": {"C": {"Type": "Choice", "Choices": [{"Variable": "$.a", "StringEquals": %[1]s, "Next": %[1]s}]}, %[1]s: {"Type": "Task", "Resource": "<b>", "End": true}}}`, quoted))
	texts := elements(t, svg)
	if bytes.Contains(svg, []byte("<script")) || !strings.Contains(strings.Join(texts["text"], "\n"), "<script>alert('&')") {
		t.Errorf("%s", svg)
	}
}

// elements parses a picture, and returns the texts of its elements by their name.
func elements(t *testing.T, svg []byte) map[string][]string {
	t.Helper()
	found := map[string][]string{}
	var open []string
	for d := xml.NewDecoder(bytes.NewReader(svg)); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return found
		}
		if err != nil {
			t.Fatalf("%v\n%s", err, svg)
		}
		switch token := token.(type) {
		case xml.StartElement:
			open = append(open, token.Name.Local)
			found[token.Name.Local] = append(found[token.Name.Local], "")
		case xml.EndElement:
			open = open[:len(open)-1]
		case xml.CharData:
			if n := len(open); n > 0 {
				list := found[open[n-1]]
				list[len(list)-1] += string(token)
			}
		}
	}
}

// TestBoxesAreApart: no box of a machine with thirty states lies on another one of the same machine, and all are in the picture.
func TestBoxesAreApart(t *testing.T) {
	states := map[string]any{}
	for i := range 30 {
		s := map[string]any{"Type": "Task", "Resource": "f", "Next": fmt.Sprintf("state %d", (i*7+3)%30)}
		choices := []any{map[string]any{"Variable": "$.x", "NumericEquals": i, "Next": fmt.Sprintf("state %d", (i+1)%30)}}
		switch i % 3 {
		case 0:
			s = map[string]any{"Type": "Choice", "Choices": choices, "Default": fmt.Sprintf("state %d", (i*11+5)%30)}
		case 1:
			s["Catch"] = []any{map[string]any{"ErrorEquals": []string{"States.ALL"}, "Next": fmt.Sprintf("state %d", (i+1)%30)}}
		}
		states[fmt.Sprintf("state %d", i)] = s
	}
	states["state 29"] = map[string]any{"Type": "Choice", "Choices": []any{map[string]any{"Variable": "$.x", "IsNull": true, "Next": "end"}}, "Default": "state 0"}
	states["end"] = map[string]any{"Type": "Succeed"}
	for i := range 29 { // all are reached
		s := states[fmt.Sprintf("state %d", i)].(map[string]any) //nolint:forcetypeassert // made above
		if s["Type"] == "Task" {
			s["Next"] = fmt.Sprintf("state %d", i+1)
		}
	}
	definition, err := json.Marshal(map[string]any{"StartAt": "state 0", "States": states})
	if err != nil {
		t.Fatal(err)
	}
	type box struct{ x, y, w, h float64 }
	var boxes []box
	var width, height float64
	for d := xml.NewDecoder(bytes.NewReader(draw(t, string(definition)))); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		e, ok := token.(xml.StartElement)
		if !ok {
			continue
		}
		number := func(name string) float64 {
			for _, a := range e.Attr {
				if a.Name.Local == name {
					f, _ := strconv.ParseFloat(a.Value, 64)
					return f
				}
			}
			return 0
		}
		switch {
		case e.Name.Local == "svg":
			width, height = number("width"), number("height")
		case e.Name.Local == "rect" && number("rx") == 7:
			boxes = append(boxes, box{number("x"), number("y"), number("width"), number("height")})
		}
	}
	if len(boxes) != 31 {
		t.Fatalf("%d boxes", len(boxes))
	}
	for i, a := range boxes {
		if a.x < 0 || a.y < 0 || a.x+a.w > width || a.y+a.h > height {
			t.Errorf("%+v is not in the picture of %v and %v", a, width, height)
		}
		for _, b := range boxes[i+1:] {
			if a.x < b.x+b.w && b.x < a.x+a.w && a.y < b.y+b.h && b.y < a.y+a.h {
				t.Errorf("%+v lies on %+v", a, b)
			}
		}
	}
}

// TestTooLarge: what nobody could read is refused, soon.
func TestTooLarge(t *testing.T) {
	var b strings.Builder
	b.WriteString(`{"StartAt": "s0", "States": {`)
	const n = 9000
	for i := range n {
		fmt.Fprintf(&b, `"s%d": {"Type": "Choice", "Choices": [{"Variable": "$.x", "IsNull": true, "Next": "s%d"}], "Default": "end"},`, i, min(i+1, n-1))
	}
	b.WriteString(`"end": {"Type": "Succeed"}}}`)
	m, err := statelang.Parse([]byte(b.String()), statelang.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := machinegraph.SVG(m); err == nil || !strings.Contains(err.Error(), "too large") {
		t.Errorf("%v", err)
	}
}
