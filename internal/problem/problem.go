// Package problem is Weir's error answer over HTTP: a document of RFC 9457, with a stable type.
//
// Invariants: every error that Weir answers with over HTTP is one; all types are in types.go and in docs/contracts.md.
//
// May import: package function, which has those types that functions answer with too.
package problem

import (
	"cmp"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// MediaType is the media type of the document.
const MediaType = "application/problem+json"

// HeaderRequestID names the request, in the answer and in logs.
const HeaderRequestID = "X-Request-Id"

// Problem is the body of an error answer, and some of its headers.
type Problem struct {
	Type      string  `json:"type"`
	Title     string  `json:"title"`
	Status    int     `json:"status"`
	Detail    string  `json:"detail"`              // says what to do
	RequestID string  `json:"requestId,omitempty"` // Write takes it from the answer's header
	Errors    []Field `json:"errors,omitempty"`

	RetryAfter time.Duration `json:"-"` // sent in whole seconds, rounded up; zero means no header
	Allow      string        `json:"-"` // methods; empty means no header
	CountAs    string        `json:"-"` // the type in metrics, if Type is not one of Weir's; empty means Type
}

// Field is one finding of a body's validation.
type Field struct {
	Pointer string `json:"pointer"` // JSON Pointer (RFC 6901) into the body
	Detail  string `json:"detail"`
}

// Write answers with p.
func (p Problem) Write(w http.ResponseWriter) {
	h := w.Header()
	p.tell(w)
	p.RequestID = h.Get(HeaderRequestID)
	h.Set("Content-Type", MediaType)
	h.Set("Cache-Control", "no-store")
	if p.RetryAfter > 0 {
		h.Set("Retry-After", strconv.FormatInt(int64((p.RetryAfter+time.Second-1)/time.Second), 10))
	}
	if p.Allow != "" {
		h.Set("Allow", p.Allow)
	}
	body, err := json.Marshal(p)
	if err != nil {
		body = []byte(`{}`) // plain strings always marshal
	}
	body = append(body, '\n')
	h.Set("Content-Length", strconv.Itoa(len(body))) // the answer is whole when it is flushed
	w.WriteHeader(p.Status)
	_, _ = w.Write(body)
}

// tell tells the first writer that wants to know it (in its method Refused) the last part of the problem's type. This is
// the one place that all problems pass.
func (p *Problem) tell(w http.ResponseWriter) {
	for {
		switch v := w.(type) {
		case interface{ Refused(name string) }:
			v.Refused(Name(cmp.Or(p.CountAs, p.Type)))
			return
		case interface{ Unwrap() http.ResponseWriter }:
			w = v.Unwrap()
		default:
			return
		}
	}
}

// Name is the last part of a type: queue-full.
func Name(typ string) string { return typ[strings.LastIndexByte(typ, '/')+1:] }
