package function

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Media types of the CloudEvents HTTP protocol binding 1.0.2.
const (
	contentTypeBatch = "application/cloudevents-batch+json"
	contentTypeEvent = "application/cloudevents+json"
)

// Event is one CloudEvent (CloudEvents 1.0.2): a record of a queue and what is known about it.
type Event struct {
	ID     string // the record's id: write idempotently by it
	Source string
	Type   string
	Time   time.Time // when the record was accepted; zero if the event has none

	Subject         string // optional; of Weir's events the path of the client's request, as it was sent
	Method          string // of the client's request, the attribute weirmethod; empty in events of others
	Query           string // of the client's request, as it was sent, the attribute weirquery; empty if there was none
	DataSchema      string // optional
	DataContentType string // the media type of Data; empty means JSON

	// Extensions are the remaining context attributes by their lower-case names: those that the route names of its
	// requests, weirattempts, traceparent; booleans and integers in their canonical text form. Nil if there are none.
	Extensions map[string]string

	// Data is the payload as its producer sent it: JSON text for a JSON content type, otherwise
	// the plain bytes. It may share memory with the other events of the batch; don't append to it.
	Data []byte
}

// ParseBatch reads a CloudEvents JSON batch (application/cloudevents-batch+json): an array of
// events in the JSON format. Data is taken as it stands in body, without a copy, where the format
// allows; body must therefore not be changed while the events are in use.
//
// An error names the event by its index; then no events are returned.
func ParseBatch(body []byte) ([]Event, error) {
	p := parser{scanner: scanner{b: body}, names: make(map[string]string)}
	events, err := p.batch()
	if err != nil {
		return nil, fmt.Errorf("cloudevents batch: %w", err)
	}
	return events, nil
}

// parseStructured reads one event in the JSON format (application/cloudevents+json).
func parseStructured(body []byte) (Event, error) {
	p := parser{scanner: scanner{b: body}, names: make(map[string]string)}
	var e Event
	p.space()
	if err := p.event(&e, 1); err != nil {
		return Event{}, fmt.Errorf("cloudevent: %w", err)
	}
	if err := p.end(); err != nil {
		return Event{}, fmt.Errorf("cloudevent: %w", err)
	}
	return e, nil
}

// parseBinary reads one event in binary mode: attributes in ce-* headers, the body as data.
func parseBinary(h http.Header, body []byte) (Event, error) {
	e := Event{DataContentType: h.Get("Content-Type"), Data: body}
	version := ""
	for name, values := range h {
		const prefix = "Ce-" // canonical form of the header names, which are case-insensitive
		if !strings.HasPrefix(name, prefix) || len(values) == 0 {
			continue
		}
		name, value := strings.ToLower(name[len(prefix):]), decodeHeader(values[0])
		switch name {
		case "specversion":
			version = value
		case "time":
			t, err := parseTime(value)
			if err != nil {
				return Event{}, fmt.Errorf("cloudevent: header ce-time: %w", err)
			}
			e.Time = t
		default:
			e.set(name, value)
		}
	}
	if err := e.check(version); err != nil {
		return Event{}, fmt.Errorf("cloudevent: binary mode: %w", err)
	}
	return e, nil
}

// decodeHeader undoes the percent-encoding of header values (HTTP protocol binding, 3.1.3.2). Text
// that isn't a valid encoding is taken as it is, as the binding wishes.
func decodeHeader(s string) string {
	if !strings.Contains(s, "%") {
		return s
	}
	if d, err := url.PathUnescape(s); err == nil {
		return d
	}
	return s
}

// set assigns one string attribute.
func (e *Event) set(name, value string) {
	switch name {
	case "id":
		e.ID = value
	case "source":
		e.Source = value
	case "type":
		e.Type = value
	case "subject":
		e.Subject = value
	case "weirmethod":
		e.Method = value
	case "weirquery":
		e.Query = value
	case "dataschema":
		e.DataSchema = value
	case "datacontenttype":
		e.DataContentType = value
	default:
		if e.Extensions == nil {
			e.Extensions = make(map[string]string, 2)
		}
		e.Extensions[name] = value
	}
}

// check holds an event against what the specification requires of every event.
func (e *Event) check(specversion string) error {
	switch {
	case specversion == "":
		return errors.New("specversion is missing")
	case specversion != "1.0":
		return fmt.Errorf("specversion %.20q: only 1.0 is understood", specversion)
	case e.ID == "":
		return errors.New("id is missing")
	case e.Source == "":
		return errors.New("source is missing")
	case e.Type == "":
		return errors.New("type is missing")
	}
	return nil
}

// parser reads events in the JSON format. The names of attributes, and the values of those that are
// the same in all events of a queue, are kept in names so that a batch allocates each once.
type parser struct {
	scanner
	names map[string]string
}

func (p *parser) batch() ([]Event, error) {
	p.space()
	if !p.take('[') {
		return nil, p.fail("not an array")
	}
	events := make([]Event, 0, p.guess())
	p.space()
	if p.take(']') {
		return events, p.end()
	}
	for {
		p.space()
		events = append(events, Event{})
		if err := p.event(&events[len(events)-1], 2); err != nil {
			return nil, fmt.Errorf("event %d: %w", len(events)-1, err)
		}
		p.space()
		if p.take(']') {
			return events, p.end()
		}
		if !p.take(',') {
			return nil, p.fail("expected , or ] after an event")
		}
	}
}

// guess returns a capacity for the events of the body; a wrong guess costs a copy, a huge one memory.
func (p *parser) guess() int {
	const bytesPerEvent, most = 1024, 1024
	return min(len(p.b)/bytesPerEvent+1, most)
}

// event reads one object into e. depth is its nesting depth: 2 in a batch.
func (p *parser) event(e *Event, depth int) error {
	if !p.take('{') {
		return p.fail("not an object")
	}
	var (
		specversion       string
		data, base64Data  []byte // raw JSON; a repeated member replaces the earlier one, as in encoding/json
		firstTime         = true
		memberName, value string
	)
	for {
		p.space()
		if firstTime && p.take('}') {
			break
		}
		firstTime = false
		raw, plain, err := p.str()
		if err != nil {
			return err
		}
		if memberName, err = p.name(raw, plain); err != nil {
			return err
		}
		p.space()
		if !p.take(':') {
			return p.fail("expected : after a name")
		}
		p.space()
		switch memberName {
		case "data":
			if data, err = p.value(depth); err != nil {
				return err
			}
		case "data_base64":
			if base64Data, err = p.value(depth); err != nil {
				return err
			}
		case "time":
			if value, err = p.attribute(memberName, depth); err != nil {
				return err
			}
			if e.Time, err = parseTime(value); err != nil {
				return fmt.Errorf("time: %w", err)
			}
		case "specversion":
			if specversion, err = p.attribute(memberName, depth); err != nil {
				return err
			}
		default:
			isNull := p.peek() == 'n'
			if value, err = p.attribute(memberName, depth); err != nil {
				return err
			}
			if isNull { // the same as absent (JSON format, 2.2)
				e.unset(memberName)
			} else {
				e.set(memberName, value)
			}
		}
		p.space()
		if p.take('}') {
			break
		}
		if !p.take(',') {
			return p.fail("expected , or } after a value")
		}
	}
	if err := e.check(specversion); err != nil {
		return err
	}
	var err error
	e.Data, err = payload(e.DataContentType, data, base64Data)
	return err
}

// unset undoes set, for a member that is repeated as null.
func (e *Event) unset(name string) {
	switch name {
	case "id", "source", "type", "subject", "dataschema", "datacontenttype", "weirmethod", "weirquery":
		e.set(name, "")
	default:
		delete(e.Extensions, name)
		if len(e.Extensions) == 0 {
			e.Extensions = nil
		}
	}
}

// name returns a member's name, or another string that many events share, allocated once.
func (p *parser) name(raw []byte, plain bool) (string, error) {
	if s, ok := p.names[string(raw)]; ok && plain {
		return s, nil
	}
	s, err := unquote(raw, plain)
	if err == nil && plain {
		p.names[s] = s
	}
	return s, err
}

// attribute reads a context attribute: a string, a boolean or a number; null gives "".
func (p *parser) attribute(name string, depth int) (string, error) {
	if p.peek() == '"' {
		raw, plain, err := p.str()
		if err != nil {
			return "", err
		}
		switch name {
		case "source", "type", "datacontenttype", "specversion":
			return p.name(raw, plain)
		}
		return unquote(raw, plain)
	}
	c := p.peek()
	raw, err := p.value(depth)
	if err != nil {
		return "", err
	}
	switch c {
	case 'n':
		return "", nil
	case '{', '[':
		return "", fmt.Errorf("attribute %.40q: must be a string, a boolean or a number", name)
	}
	switch name {
	case "id", "source", "type", "subject", "dataschema", "datacontenttype", "time", "specversion":
		return "", fmt.Errorf("%s: must be a string", name)
	}
	return string(raw), nil
}

// payload gives data the form its producer sent it in (JSON format, 3.1): JSON text as it stands
// for a JSON content type, the string's content for any other, bytes from data_base64.
func payload(contentType string, data, base64Data []byte) ([]byte, error) {
	if string(base64Data) == "null" {
		base64Data = nil
	}
	switch {
	case data != nil && base64Data != nil:
		return nil, errors.New("data and data_base64 exclude each other")
	case base64Data != nil:
		if base64Data[0] != '"' {
			return nil, errors.New("data_base64: must be a string")
		}
		s, err := unquote(base64Data[1:len(base64Data)-1], false)
		if err != nil {
			return nil, fmt.Errorf("data_base64: %w", err)
		}
		b, err := base64.StdEncoding.DecodeString(s)
		if err != nil {
			return nil, fmt.Errorf("data_base64: %w", err)
		}
		return b, nil
	case data == nil || IsJSON(contentType):
		return data, nil
	case string(data) == "null":
		return nil, nil
	case data[0] != '"':
		return nil, fmt.Errorf("data of content type %.60q: must be a string", contentType)
	}
	s, err := unquote(data[1:len(data)-1], false)
	if err != nil {
		return nil, fmt.Errorf("data: %w", err)
	}
	return []byte(s), nil
}

// IsJSON tells whether data of this content type is JSON: application/json, text/json, anything
// with the suffix +json (RFC 6839), and, as CloudEvents has it, no content type at all.
func IsJSON(contentType string) bool {
	if contentType == "" || contentType == "application/json" {
		return true
	}
	media, _, _ := strings.Cut(contentType, ";")
	media = strings.ToLower(strings.TrimSpace(media))
	return media == "" || media == "application/json" || media == "text/json" || strings.HasSuffix(media, "+json")
}

func parseTime(s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return time.Time{}, fmt.Errorf("%.40q is not an RFC 3339 timestamp", s)
	}
	return t, nil
}
