package emf

import (
	"bytes"
	"hash/maphash"
	"slices"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"
)

// Bounds of the format (AWS: "Specification: Embedded metric format"). What goes past one is dropped, as the
// specification's MUST NOT has it, and the rest of the line counts.
const (
	// MaxLineBytes is that of an event of CloudWatch Logs.
	MaxLineBytes     = 1 << 20
	maxMetrics       = 100  // of a directive
	maxDimensions    = 30   // of a dimension set
	maxValues        = 100  // of an array
	maxNameBytes     = 1024 // of a namespace and of a metric's name
	maxKeyBytes      = 250  // of a dimension's name
	maxDimensionText = 1024 // of a dimension's value
	// maxValue is 2^360: CloudWatch takes no value beyond it, in either direction.
	maxValue = 0x1p360
)

// Document is what a line says. What it holds is the line's or the parser's: it is over with the next Parse.
type Document struct {
	Directives []Directive
	Dropped    Reasons // of what isn't in Directives
}

// Directive is a MetricDirective: each metric belongs to a series for each of the dimension sets.
type Directive struct {
	Namespace []byte
	Sets      [][]Dimension // at least one, unless all were dropped; a set may be empty
	Metrics   []Metric
}

// Dimension is the name of a member of the root and the text of its value.
type Dimension struct{ Name, Value []byte }

// Metric is a MetricDefinition and the values of the member that it refers to.
type Metric struct {
	Name, Unit []byte // Unit is empty if there is none
	Resolution int    // StorageResolution in seconds: 1 or 60
	Values     []float64
}

// Parser parses one line at a time, and keeps its memory for the next one. The zero value is ready.
type Parser struct {
	line    []byte
	input   bytes.Buffer
	dec     jsontext.Decoder
	text    []byte // of strings that are written with escapes
	members []member
	index   map[uint64]int // of the members, if they are many
	seed    maphash.Seed
	refs    []directiveRefs
	sets    [][]Dimension
	dims    []Dimension
	metrics []Metric
	values  []float64
	doc     Document
}

// member is one of the root's. The value is as it is written.
type member struct {
	name  []byte
	value []byte
}

// directiveRefs is a directive before its references are looked up.
type directiveRefs struct {
	namespace []byte
	sets      [][][]byte
	metrics   []metricRef
	valid     bool // it has the three members that it must have, each of its type
	many      bool // more metrics than a directive may have
}

type metricRef struct {
	name, unit []byte
	resolution int
}

// candidate reports whether the line may be a document of the format: it is all that most lines of a log cost. A line
// that writes the letters of _aws as escapes is one too.
func candidate(line []byte) bool {
	for len(line) > 0 && isSpace(line[0]) {
		line = line[1:]
	}
	return len(line) > 0 && line[0] == '{' && (bytes.Contains(line, []byte(`_aws"`)) || bytes.Contains(line, []byte(`\u00`)))
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }

// Parse returns what the line says, or nil if it is no document of the format: none is counted as malformed but a line
// that names _aws and isn't JSON, or whose _aws isn't as the specification has it.
func (p *Parser) Parse(line []byte) *Document {
	if !candidate(line) {
		return nil
	}
	p.reset(line)
	found, err := p.root()
	switch {
	case err != nil && !bytes.Contains(line, []byte(`"_aws"`)):
		return nil // some other text in braces
	case err != nil:
		p.doc = Document{Directives: p.doc.Directives[:0], Dropped: Malformed}
	case !found:
		return nil
	default:
		p.resolve()
	}
	return &p.doc
}

func (p *Parser) reset(line []byte) {
	p.line = line
	p.input = *bytes.NewBuffer(line)
	// Of members that are there twice the last one counts, as in most parsers; text that isn't UTF-8 is replaced.
	p.dec.Reset(&p.input, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	p.text, p.members, p.refs = p.text[:0], p.members[:0], p.refs[:0]
	p.sets, p.dims, p.metrics, p.values = p.sets[:0], p.dims[:0], p.metrics[:0], p.values[:0]
	p.doc = Document{Directives: p.doc.Directives[:0]}
}

// root reads the line. found: it has a member _aws with CloudWatchMetrics. An error means that it isn't JSON.
func (p *Parser) root() (found bool, err error) {
	if _, err := p.dec.ReadToken(); err != nil {
		return false, err
	}
	for p.dec.PeekKind() != '}' {
		name, err := p.str()
		if err != nil {
			return false, err
		}
		if string(name) == "_aws" {
			if found, err = p.metadata(); err != nil {
				return false, err
			}
			continue
		}
		value, err := p.raw()
		if err != nil {
			return false, err
		}
		p.members = append(p.members, member{name, value})
	}
	if _, err := p.dec.ReadToken(); err != nil {
		return false, err
	}
	for _, c := range p.line[p.dec.InputOffset():] {
		if !isSpace(c) {
			return false, errTrailing
		}
	}
	return found, nil
}

// metadata reads the value of _aws. Its Timestamp isn't read: see docs/decisions/0021-emf.md.
func (p *Parser) metadata() (found bool, err error) {
	p.refs, p.doc.Dropped = p.refs[:0], 0
	return found, p.object(func(name []byte) error {
		if string(name) != "CloudWatchMetrics" {
			return p.dec.SkipValue()
		}
		found = true
		p.refs, p.doc.Dropped = p.refs[:0], 0
		isArray, err := p.array(func() error { return p.directive() })
		if err == nil && !isArray {
			p.doc.Dropped |= Malformed
		}
		return err
	})
}

func (p *Parser) directive() error {
	p.refs = grow(p.refs)
	d := &p.refs[len(p.refs)-1]
	d.namespace, d.valid, d.many = nil, false, false
	d.sets, d.metrics = d.sets[:0], d.metrics[:0]
	var hasSets, hasMetrics bool
	err := p.object(func(name []byte) (err error) {
		switch string(name) {
		case "Namespace":
			d.namespace, err = p.strOrSkip()
		case "Dimensions":
			hasSets, err = p.dimensionSets(d)
		case "Metrics":
			hasMetrics, err = p.metricDefinitions(d)
		default:
			err = p.dec.SkipValue()
		}
		return err
	})
	d.valid = hasSets && hasMetrics && len(d.namespace) > 0 && len(d.namespace) <= maxNameBytes
	return err
}

// dimensionSets reads Dimensions. ok: it is an array of arrays of strings.
func (p *Parser) dimensionSets(d *directiveRefs) (ok bool, err error) {
	d.sets, ok = d.sets[:0], true
	isArray, err := p.array(func() error {
		d.sets = grow(d.sets)
		set := &d.sets[len(d.sets)-1]
		*set = (*set)[:0]
		isArray, err := p.array(func() error {
			key, err := p.strOrSkip()
			ok = ok && key != nil
			*set = append(*set, key)
			return err
		})
		ok = ok && isArray
		return err
	})
	return ok && isArray, err
}

// metricDefinitions reads Metrics. ok: it is an array of objects with a Name.
func (p *Parser) metricDefinitions(d *directiveRefs) (ok bool, err error) {
	d.metrics, d.many, ok = d.metrics[:0], false, true
	isArray, err := p.array(func() error {
		m := metricRef{resolution: 60}
		err := p.object(func(name []byte) (err error) {
			switch string(name) {
			case "Name":
				m.name, err = p.strOrSkip()
			case "Unit":
				m.unit, err = p.strOrSkip()
			case "StorageResolution":
				var raw []byte
				if raw, err = p.raw(); string(raw) == "1" {
					m.resolution = 1
				} else {
					m.resolution = 60
				}
			default:
				err = p.dec.SkipValue()
			}
			return err
		})
		ok = ok && m.name != nil
		if d.many = d.many || len(d.metrics) == maxMetrics; !d.many {
			d.metrics = append(d.metrics, m)
		}
		return err
	})
	return ok && isArray, err
}

// object calls f with the name of each member, whose value f must read. It skips what is no object.
func (p *Parser) object(f func(name []byte) error) error {
	if p.dec.PeekKind() != '{' {
		return p.dec.SkipValue()
	}
	if _, err := p.dec.ReadToken(); err != nil {
		return err
	}
	for p.dec.PeekKind() != '}' {
		name, err := p.str()
		if err == nil {
			err = f(name)
		}
		if err != nil {
			return err
		}
	}
	_, err := p.dec.ReadToken()
	return err
}

// array calls f for each element, which f must read. It skips what is no array.
func (p *Parser) array(f func() error) (isArray bool, err error) {
	if p.dec.PeekKind() != '[' {
		return false, p.dec.SkipValue()
	}
	if _, err := p.dec.ReadToken(); err != nil {
		return true, err
	}
	for p.dec.PeekKind() != ']' {
		if err := f(); err != nil {
			return true, err
		}
	}
	_, err = p.dec.ReadToken()
	return true, err
}

// raw reads a value, as it is written in the line.
func (p *Parser) raw() ([]byte, error) {
	v, err := p.dec.ReadValue()
	end := int(p.dec.InputOffset())
	return p.line[end-len(v) : end], err
}

// str reads a string that must be one. It is not nil.
func (p *Parser) str() ([]byte, error) {
	raw, err := p.raw()
	if err != nil {
		return nil, err
	}
	if len(raw) < 2 || raw[0] != '"' {
		return nil, errNotString
	}
	return p.unquote(raw), nil
}

// strOrSkip reads a string, or skips another value and returns nil.
func (p *Parser) strOrSkip() ([]byte, error) {
	if p.dec.PeekKind() != '"' {
		return nil, p.dec.SkipValue()
	}
	return p.str()
}

// unquote is the text of a JSON string: of the line itself, where it is written without escapes.
func (p *Parser) unquote(raw []byte) []byte {
	inner := raw[1 : len(raw)-1]
	for _, c := range inner {
		if c == '\\' || c >= 0x80 {
			start := len(p.text)
			p.text, _ = jsontext.AppendUnquote(p.text, raw) // its error is of text that isn't UTF-8, which it has replaced
			return p.text[start:len(p.text):len(p.text)]
		}
	}
	return inner
}

// grow adds an element, which may be one that was used before and keeps its memory.
func grow[T any](s []T) []T {
	if len(s) < cap(s) {
		return s[:len(s)+1]
	}
	var zero T
	return append(s, zero)
}

// resolve looks up what the directives refer to.
func (p *Parser) resolve() {
	p.indexMembers()
	for i := range p.refs {
		r := &p.refs[i]
		switch {
		case !r.valid:
			p.doc.Dropped |= BadDirective
			continue
		case r.many:
			p.doc.Dropped |= TooManyMetrics
			continue
		}
		d := Directive{Namespace: r.namespace}
		first := len(p.sets)
		for _, keys := range r.sets {
			if set, ok := p.dimensionSet(keys); ok {
				p.sets = append(p.sets, set)
			}
		}
		if len(r.sets) == 0 { // as [[]]: the values count, without dimensions
			p.sets = append(p.sets, nil)
		}
		d.Sets = p.sets[first:len(p.sets):len(p.sets)]
		first = len(p.metrics)
		for _, ref := range r.metrics {
			if values, ok := p.metricValues(ref.name); ok {
				p.metrics = append(p.metrics, Metric{ref.name, ref.unit, ref.resolution, values})
			}
		}
		d.Metrics = p.metrics[first:len(p.metrics):len(p.metrics)]
		p.doc.Directives = append(p.doc.Directives, d)
	}
}

func (p *Parser) dimensionSet(keys [][]byte) (set []Dimension, ok bool) {
	if len(keys) > maxDimensions {
		p.doc.Dropped |= TooManyDimensions
		return nil, false
	}
	first := len(p.dims)
	for _, key := range keys {
		raw := p.target(key)
		if raw == nil {
			p.doc.Dropped |= NoDimension
			return nil, false
		}
		var value []byte
		switch c := raw[0]; {
		case c == '"':
			value = p.unquote(raw)
		case c == '-' || c >= '0' && c <= '9':
			// The specification wants a string. The libraries write a metric over the dimension of its name.
			value = raw
		}
		if len(value) == 0 || len(value) > maxDimensionText || len(key) == 0 || len(key) > maxKeyBytes {
			p.doc.Dropped |= BadDimension
			return nil, false
		}
		p.dims = append(p.dims, Dimension{key, value})
	}
	return p.dims[first:len(p.dims):len(p.dims)], true
}

func (p *Parser) metricValues(name []byte) (values []float64, ok bool) {
	raw := p.target(name)
	switch {
	case len(name) == 0 || len(name) > maxNameBytes:
		p.doc.Dropped |= BadDirective
		return nil, false
	case raw == nil:
		p.doc.Dropped |= NoMetric
		return nil, false
	}
	first := len(p.values)
	if raw[0] != '[' {
		if !p.value(raw) {
			return nil, false
		}
		return p.values[first:len(p.values):len(p.values)], true
	}
	for rest := raw[1:]; ; { // it is valid JSON: what is split at commas is a number or is refused as none
		end := bytes.IndexAny(rest, ",]")
		element := bytes.Trim(rest[:end], " \t\r\n")
		switch {
		case len(element) == 0 && rest[end] == ']' && len(p.values) == first:
			return nil, true // an empty array has no values, and nothing is wrong with it
		case len(p.values)-first == maxValues:
			p.doc.Dropped |= TooManyValues
			return nil, false
		case !p.value(element):
			return nil, false
		}
		if rest[end] == ']' {
			return p.values[first:len(p.values):len(p.values)], true
		}
		rest = rest[end+1:]
	}
}

// value appends a number.
func (p *Parser) value(raw []byte) bool {
	v, ok := number(raw)
	if !ok || v > maxValue || v < -maxValue {
		p.doc.Dropped |= BadValue
		return false
	}
	p.values = append(p.values, v)
	return true
}

// number is the value of a JSON number.
func number(raw []byte) (float64, bool) {
	if len(raw) == 0 || raw[0] != '-' && (raw[0] < '0' || raw[0] > '9') {
		return 0, false
	}
	if len(raw) <= 15 { // whole numbers, which most are
		n := 0
		for i, c := range raw {
			if c < '0' || c > '9' {
				break
			}
			if n = n*10 + int(c-'0'); i == len(raw)-1 {
				return float64(n), true
			}
		}
	}
	v, err := strconv.ParseFloat(string(raw), 64)
	return v, err == nil
}

// manyMembers is from how many on they are found by their hash: a line of 1 MiB may have some ten thousand, and as many
// references.
const manyMembers = 48

func (p *Parser) indexMembers() {
	if len(p.members) < manyMembers {
		return
	}
	if p.index == nil {
		p.index, p.seed = map[uint64]int{}, maphash.MakeSeed()
	}
	clear(p.index)
	for i := range p.members {
		p.index[maphash.Bytes(p.seed, p.members[i].name)] = i
	}
}

// target is the value of a member of the root, the last one of its name; nil if there is none. The members of other
// objects are none (AWS: "Target members").
func (p *Parser) target(name []byte) []byte {
	if len(p.members) >= manyMembers {
		if i, ok := p.index[maphash.Bytes(p.seed, name)]; ok && bytes.Equal(p.members[i].name, name) {
			return p.members[i].value
		}
		return nil
	}
	for _, m := range slices.Backward(p.members) {
		if bytes.Equal(m.name, name) {
			return m.value
		}
	}
	return nil
}
