package emf

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// plainly reads a line as the specification has it, with encoding/json and without a thought for speed.
func plainly(line []byte) (found bool, dropped Reasons, out []string) {
	d := json.NewDecoder(bytes.NewReader(line))
	d.UseNumber()
	var root map[string]any
	if err := d.Decode(&root); err != nil || len(bytes.Trim(line[d.InputOffset():], " \t\r\n")) > 0 {
		if bytes.Contains(line, []byte(`"_aws"`)) && strings.HasPrefix(strings.TrimLeft(string(line), " \t\r\n"), "{") {
			return true, Malformed, nil
		}
		return false, 0, nil
	}
	meta, _ := root["_aws"].(map[string]any)
	value, found := meta["CloudWatchMetrics"]
	if !found {
		return false, 0, nil
	}
	directives, ok := value.([]any)
	if !ok {
		return true, Malformed, nil
	}
	delete(root, "_aws")
	for _, v := range directives {
		why, lines := plainDirective(v, root)
		dropped |= why
		out = append(out, lines...)
	}
	return true, dropped, out
}

func plainDirective(v any, root map[string]any) (dropped Reasons, out []string) {
	directive, _ := v.(map[string]any)
	namespace, _ := directive["Namespace"].(string)
	sets, hasSets := directive["Dimensions"].([]any)
	metrics, hasMetrics := directive["Metrics"].([]any)
	if namespace == "" || len(namespace) > maxNameBytes || !hasSets || !hasMetrics {
		return BadDirective, nil
	}
	var keys [][]string
	for _, s := range sets {
		set, ok := s.([]any)
		if !ok {
			return BadDirective, nil
		}
		texts := []string{}
		for _, k := range set {
			text, ok := k.(string)
			if !ok {
				return BadDirective, nil
			}
			texts = append(texts, text)
		}
		keys = append(keys, texts)
	}
	for _, m := range metrics {
		m, _ := m.(map[string]any)
		if _, ok := m["Name"].(string); !ok {
			return BadDirective, nil
		}
	}
	if len(metrics) > maxMetrics {
		return TooManyMetrics, nil
	}
	if len(keys) == 0 {
		keys = [][]string{{}}
	}
	var dims []string
	for _, set := range keys {
		text, why := plainDimensions(set, root)
		if dropped |= why; why == 0 {
			dims = append(dims, text)
		}
	}
	for _, m := range metrics {
		m, _ := m.(map[string]any)
		name, _ := m["Name"].(string)
		unit, _ := m["Unit"].(string)
		values, why := plainValues(name, root)
		if dropped |= why; why != 0 {
			continue
		}
		resolution := 60
		if n, ok := m["StorageResolution"].(json.Number); ok && n == "1" {
			resolution = 1
		}
		for _, d := range dims {
			out = append(out, fmt.Sprintf("%q %q %q %d %s %v", namespace, name, unit, resolution, d, values))
		}
	}
	return dropped, out
}

func plainDimensions(set []string, root map[string]any) (string, Reasons) {
	if len(set) > maxDimensions {
		return "", TooManyDimensions
	}
	out := []string{}
	for _, key := range set {
		value, ok := root[key]
		if !ok {
			return "", NoDimension
		}
		text, _ := value.(string)
		if n, ok := value.(json.Number); ok {
			text = n.String()
		}
		if text == "" || len(text) > maxDimensionText || key == "" || len(key) > maxKeyBytes {
			return "", BadDimension
		}
		out = append(out, fmt.Sprintf("%q=%q", key, text))
	}
	return fmt.Sprint(out), 0
}

func plainValues(name string, root map[string]any) ([]float64, Reasons) {
	if name == "" || len(name) > maxNameBytes {
		return nil, BadDirective
	}
	value, ok := root[name]
	if !ok {
		return nil, NoMetric
	}
	elements, isArray := value.([]any)
	if !isArray {
		elements = []any{value}
	}
	out := []float64{}
	for i, e := range elements {
		if i == maxValues {
			return nil, TooManyValues
		}
		n, _ := e.(json.Number)
		f, err := n.Float64()
		if err != nil || f > maxValue || f < -maxValue {
			return nil, BadValue
		}
		out = append(out, f)
	}
	return out, 0
}

// FuzzParse holds the parser to encoding/json, and to itself with the memory of another line.
func FuzzParse(f *testing.F) {
	f.Add([]byte(sample))
	f.Add([]byte(`{"_aws":{"CloudWatchMetrics":[{"Namespace":"N","Dimensions":[["a"],[]],"Metrics":[{"Name":"v","Unit":"Count","StorageResolution":1}]}]},"a":"\u00e9","v":[1,-2.5e3]}`))
	f.Add([]byte(`{"\u005faws":{"CloudWatchMetrics":[{},1,{"Namespace":"","Dimensions":[1],"Metrics":[{}]}]},"a":"\ud800","_aws":{"CloudWatchMetrics":[]}}`))
	f.Add([]byte(`{"_aws":{"CloudWatchMetrics":[{"Namespace":"N","Dimensions":[],"Metrics":[{"Name":"v"}]}]},"v":["a,b]",[],{}]}`))
	used := &Parser{}
	f.Fuzz(func(t *testing.T, line []byte) {
		if bytes.ContainsRune(line, '\n') {
			t.Skip("no line")
		}
		used.Parse([]byte(sample))
		doc := used.Parse(line)
		found, dropped, want := plainly(line)
		if found != (doc != nil) {
			t.Fatalf("%q: a document: %t, want %t", line, doc != nil, found)
		}
		if doc == nil {
			return
		}
		var got []string
		for _, d := range doc.Directives {
			for _, m := range d.Metrics {
				for _, set := range d.Sets {
					dims := []string{}
					for _, dim := range set {
						dims = append(dims, fmt.Sprintf("%q=%q", dim.Name, dim.Value))
					}
					got = append(got, fmt.Sprintf("%q %q %q %d %s %v", d.Namespace, m.Name, m.Unit, m.Resolution, fmt.Sprint(dims), m.Values))
				}
			}
		}
		if doc.Dropped != dropped || !slices.Equal(got, want) {
			t.Fatalf("%q\n%012b %q\nwant\n%012b %q", line, doc.Dropped, got, dropped, want)
		}
	})
}
