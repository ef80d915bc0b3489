// Package invoke calls functions over HTTP: the CloudEvents binding, the classes of outcomes, the
// adaptive limit of calls in flight, and the pass-through of synchronous requests. It is the only
// caller of functions.
//
// Invariants: a call's outcome is one of four classes and never an error besides; a call that was
// throttled is never counted as failed; no more calls are in flight than the limiter's cap.
//
// May import: record, catalog, coding, telemetry.
package invoke

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/weir-dev/weir/internal/coding"
	"github.com/weir-dev/weir/internal/record"
	"github.com/weir-dev/weir/internal/telemetry"
)

// Class is what a function's answer means for the records of the call (docs/contracts.md, the status
// table).
type Class int

// The classes.
const (
	// Done: the records are settled, except for those in FailedIDs.
	Done Class = iota
	// NotNow: the function can't take the call now; no attempt is counted.
	NotNow
	// Failed: an attempt is counted for every record.
	Failed
	// Refused: permanent; the same call will always be refused.
	Refused
)

func (c Class) String() string {
	return [...]string{"done", "not now", "failed", "refused"}[c]
}

// Outcome is the result of one call.
type Outcome struct {
	Class      Class
	FailedIDs  map[record.ID]string // Done: the records that the function named as failed, and why
	Status     int                  // HTTP status; zero if there was no answer
	Reason     string               // for people
	RetryAfter time.Duration        // NotNow: the function's Retry-After; zero if none
	Problem    *Problem             // what the function said (RFC 9457), if it did, with a status that is not 2xx
	Said       []byte               // the answer's body, with a status that is not 2xx: at most Question.Limit bytes
	// Undelivered: NotNow, because the function closed the connection before it had the whole request, and gave no answer.
	// It may be the record's doing.
	Undelivered bool
	TimedOut    bool // Failed: no answer came in time
	GatewayErr  bool // 502 or 504: Failed, unless no instance is ready (see Limiter)
	ColdStart   bool // of Limiter.Release: it is the first answer after the function had no instance

	function string        // Batch.Function, Question.Function
	took     time.Duration // the whole call, until its answer was read
	trouble  string        // why there is no answer, as error.type; empty if there is one
}

// Problem is a function's problem document.
type Problem struct {
	Type, Title, Detail string
}

// problemOf reads a problem document; nil if the answer is none.
func problemOf(h http.Header, body []byte) *Problem {
	media, _, err := mime.ParseMediaType(h.Get("Content-Type"))
	var p Problem
	if err != nil || media != "application/problem+json" || json.Unmarshal(body, &p) != nil || p.Title+p.Detail == "" {
		return nil
	}
	return &p
}

// Bounds of a function's answer to a batch.
const (
	maxAnswerBytes = 1 << 20
	maxReasonBytes = 256 // of the answer's body that goes into a reason
	// expectFrom is the size of a request from which on a function is asked first whether it takes it (Expect: 100-continue),
	// and expectTimeout how long an answer to that is waited for. Some never answer.
	expectFrom    = 256 << 10
	expectTimeout = time.Second
	// SmallAnswer is how much of an answer is read without leave: Batch.Room, Question.Room.
	SmallAnswer   = 32 << 10
	maxRetryAfter = 5 * time.Minute
)

// Caller calls functions. It is safe for concurrent use.
type Caller struct {
	// Not an http.Client: a function that redirects is misconfigured, as following would turn a POST into a GET.
	http *http.Transport
	h2c  priorKnowledge // HTTP/2

	durations  *durations
	coldStarts metric.Int64Counter
	tracer     trace.Tracer // nil if disabled
	client     []trace.SpanStartOption
}

// NewCaller returns a caller that keeps at most maxIdle idle connections to each function. tel makes its instruments and
// spans; the zero value makes none.
func NewCaller(maxIdle int, tel telemetry.Providers) *Caller {
	return &Caller{
		http: transport(maxIdle), h2c: newPriorKnowledge(maxIdle),
		durations: newDurations(tel.Meter(scope)), coldStarts: newColdStarts(tel.Meter(scope)), tracer: tel.Tracer(scope),
		client: []trace.SpanStartOption{trace.WithSpanKind(trace.SpanKindClient)},
	}
}

func (c *Caller) speaking(h2c bool) http.RoundTripper {
	if h2c {
		return c.h2c
	}
	return c.http
}

func transport(maxIdle int) *http.Transport {
	return &http.Transport{
		DialContext:         dial,
		MaxIdleConns:        0,
		MaxIdleConnsPerHost: maxIdle,
		IdleConnTimeout:     90 * time.Second,
		WriteBufferSize:     64 << 10,
		ReadBufferSize:      16 << 10,
		// Also of a client's own Expect on a synchronous route: it is answered when the function has been asked.
		ExpectContinueTimeout: expectTimeout,
		DisableCompression:    true, // what passes through keeps its encoding
	}
}

// Close drops idle connections.
func (c *Caller) Close() {
	c.http.CloseIdleConnections()
	c.h2c.CloseIdleConnections()
}

// Answer is a function's answer to one record.
type Answer struct {
	ContentType string
	Body        []byte
	unread      error // why the body can't be decoded
}

// Batch is a call that needs only the outcome of its records.
type Batch struct {
	Function string // FunctionName: whose call it is in metrics and traces
	URL      string
	H2C      bool // the function speaks HTTP/2 by prior knowledge; else HTTP/1.1
	Records  []*record.Record
	Single   bool          // send the one record in CloudEvents' binary mode, else a JSON batch
	Timeout  time.Duration // of the whole call
	// Permanent are the statuses that are Refused; nil for the default (permanent).
	Permanent []int
	// Room waits until there is memory for an answer past SmallAnswer, which is then kept until Call returns. nil if there
	// always is. Its errors are a TroubleError, or the end of ctx.
	Room func(ctx context.Context) error
}

// Call posts a batch and classifies the answer. ctx ending before the timeout gives NotNow, because it says nothing about
// the records.
func (c *Caller) Call(ctx context.Context, b Batch) Outcome {
	o, a := c.traced(ctx, call{
		function: b.Function, url: b.URL, h2c: b.H2C, records: b.Records, single: b.Single, timeout: b.Timeout, permanent: b.Permanent, limit: maxAnswerBytes, room: b.Room,
	})
	if a == nil {
		return o
	}
	return o.as(named(o.Status, a, b.Records))
}

// HeaderCallback holds the URL to which a function that goes on after its answer reports how the work goes.
const HeaderCallback = "Weir-Callback"

// Question is a call whose answer is kept.
type Question struct {
	Function string // as in Batch
	URL      string
	H2C      bool // as in Batch
	Record   *record.Record
	Timeout  time.Duration
	Callback string // HeaderCallback; empty if none
	// Permanent is as in Batch.
	Permanent []int
	// Open opens what is sent instead of the record's body, when that has an Input. It may be called more than once.
	Open func(context.Context) (io.ReadCloser, error)
	// Limit is how many bytes of the answer are returned. A longer one goes to Keep, from its beginning on.
	Limit int
	Room  func(ctx context.Context) error // as in Batch, for what is returned
	Keep  func(ctx context.Context, contentType string, body io.Reader) error
}

// TroubleError is an error of Open or Keep that is not the function's fault: it carries the class that it means for the
// record. Any other is Failed.
type TroubleError struct {
	Class Class
	Err   error
}

// Error implements error.
func (t *TroubleError) Error() string { return t.Err.Error() }

// Unwrap is for errors.Is.
func (t *TroubleError) Unwrap() error { return t.Err }

// Ask posts the record in CloudEvents' binary mode. Otherwise it is like Call. The answer has no body when Keep took it.
func (c *Caller) Ask(ctx context.Context, q Question) (Outcome, Answer) {
	o, a := c.traced(ctx, call{
		function: q.Function, url: q.URL, h2c: q.H2C, records: []*record.Record{q.Record}, single: true, timeout: q.Timeout, permanent: q.Permanent, limit: q.Limit, callback: q.Callback,
		open: q.Open, room: q.Room, keep: q.Keep,
	})
	switch {
	case a == nil:
		return o, Answer{}
	case a.unread != nil:
		return o.as(Outcome{Class: Failed, Status: o.Status, Reason: "the answer can't be decoded: " + a.unread.Error()}), Answer{}
	}
	return o, *a
}

type call struct {
	function  string
	url       string
	h2c       bool
	records   []*record.Record
	single    bool
	timeout   time.Duration
	permanent []int
	limit     int
	callback  string
	// unexpected: the function answers 417 to Expect.
	unexpected bool
	open       func(context.Context) (io.ReadCloser, error)
	room       func(context.Context) error                    // nil if there always is
	keep       func(context.Context, string, io.Reader) error // nil if none: then up to limit+1 bytes are returned
}

// traced is exchange in a span, measured.
func (c *Caller) traced(ctx context.Context, k call) (Outcome, *Answer) {
	start := time.Now()
	ctx, span := c.clientSpan(ctx, http.MethodPost, k.function, func() *url.URL {
		u, _ := url.Parse(k.url) // nil if it is none, which the call says
		return u
	})
	o, a := c.exchange(ctx, k)
	o.function, o.took = k.function, time.Since(start)
	endSpan(span, o.Status, o.trouble, o.Reason)
	return o, a
}

// as is what the answer to o's call turns out to mean.
func (o Outcome) as(meant Outcome) Outcome {
	meant.function, meant.took, meant.trouble = o.function, o.took, o.trouble
	return meant
}

// exchange returns the answer of a call that succeeded, at most limit+1 bytes of its body, else nil.
func (c *Caller) exchange(ctx context.Context, k call) (Outcome, *Answer) {
	cctx, cancel := context.WithTimeout(ctx, k.timeout)
	defer cancel()
	var connected, written atomic.Bool
	tctx := httptrace.WithClientTrace(cctx, &httptrace.ClientTrace{
		GotConn:      func(httptrace.GotConnInfo) { connected.Store(true) },
		WroteRequest: func(info httptrace.WroteRequestInfo) { written.Store(info.Err == nil) },
	})
	input := &input{ctx: cctx, open: k.open}
	defer input.close()
	req, err := newRequest(tctx, k, input)
	if err != nil {
		if o := troubled(ctx, err); o != nil {
			return *o, nil
		}
		if cctx.Err() != nil {
			return noAnswer(ctx, cctx, k.timeout, err), nil
		}
		return Outcome{Class: Failed, Reason: "the request can't be built: " + err.Error(), trouble: troubleOther}, nil
	}
	if u := req.URL.User; u != nil { // an http.Client would do so too
		password, _ := u.Password()
		req.SetBasicAuth(u.Username(), password)
	}
	c.propagate(ctx, req.Header)
	if k.callback != "" {
		req.Header.Set(HeaderCallback, k.callback)
	}
	var unsent atomic.Bool
	if req.ContentLength >= expectFrom && !k.unexpected {
		req.Header.Set("Expect", "100-continue")
		watchSending(req, &unsent)
	}
	resp, err := c.speaking(k.h2c).RoundTrip(req)
	if err != nil {
		if o := troubled(ctx, input.failure(), err); o != nil {
			return *o, nil
		}
		if !connected.Load() && ctx.Err() == nil {
			return Outcome{Class: NotNow, Reason: "no connection: " + err.Error(), trouble: troubleNoConnection}, nil
		}
		if errors.Is(err, errNoHTTP2) && cctx.Err() == nil {
			return Outcome{Class: NotNow, Reason: err.Error(), trouble: troubleNoConnection}, nil
		}
		if (!written.Load() || unsent.Load() || errors.Is(err, errNotTaken)) && cctx.Err() == nil { // and it has not answered either
			return Outcome{Class: NotNow, Undelivered: true, trouble: troubleBroken, Reason: "the function closed the connection before it had the whole request: " + err.Error()}, nil
		}
		return noAnswer(ctx, cctx, k.timeout, err), nil
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode == http.StatusExpectationFailed && req.Header.Get("Expect") != "" { // RFC 9110, section 10.1.1
		k.unexpected = true
		_ = resp.Body.Close()
		return c.exchange(ctx, k)
	}
	success := resp.StatusCode >= 200 && resp.StatusCode < 300
	contentType := resp.Header.Get("Content-Type")
	decoded, unread := coding.NewReader(coding.Of(resp.Header), resp.Body)
	if unread != nil {
		decoded = io.NopCloser(http.NoBody)
	}
	defer func() { _ = decoded.Close() }()
	body, err := k.read(cctx, decoded)
	if err == nil && success && k.keep != nil && len(body) > k.limit {
		err = k.keep(cctx, contentType, io.MultiReader(bytes.NewReader(body), decoded))
		body = nil
	}
	if err != nil && (success || ctx.Err() != nil) { // else the status alone says enough: a 429 is a 429
		// A failure of the input may be why the function cut its answer.
		if o := troubled(ctx, input.failure(), err); o != nil {
			return *o, nil
		}
		o := noAnswer(ctx, cctx, k.timeout, err)
		o.Status = resp.StatusCode
		return o, nil
	}
	if success {
		return Outcome{Class: Done, Status: resp.StatusCode}, &Answer{ContentType: contentType, Body: body, unread: unread}
	}
	return classify(resp, body, k.permanent), nil
}

// read reads at most limit+1 bytes of an answer.
func (k *call) read(ctx context.Context, answer io.Reader) ([]byte, error) {
	most := k.limit + 1
	if k.room == nil || most <= SmallAnswer {
		return io.ReadAll(io.LimitReader(answer, int64(most)))
	}
	body, err := io.ReadAll(io.LimitReader(answer, SmallAnswer))
	if err != nil || len(body) < SmallAnswer {
		return body, err
	}
	if err := k.room(ctx); err != nil {
		return body, err
	}
	rest, err := io.ReadAll(io.LimitReader(answer, int64(most-len(body))))
	return append(body, rest...), err
}

// watchSending sets unsent while part of the request's body has yet to be read: the transport doesn't tell when it gives
// up a request whose body nobody asked for.
func watchSending(req *http.Request, unsent *atomic.Bool) {
	body, again := req.Body, req.GetBody
	unsent.Store(true)
	req.Body = &sentBody{body, unsent}
	req.GetBody = func() (io.ReadCloser, error) {
		b, err := again()
		if err != nil {
			return nil, err
		}
		unsent.Store(true)
		return &sentBody{b, unsent}, nil
	}
}

type sentBody struct {
	io.ReadCloser
	unsent *atomic.Bool
}

// Read implements io.Reader.
func (b *sentBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if errors.Is(err, io.EOF) {
		b.unsent.Store(false)
	}
	return n, err
}

// troubled is the outcome of the first of errs that is a TroubleError, unless the call was cut; nil if none is.
func troubled(ctx context.Context, errs ...error) *Outcome {
	for _, err := range errs {
		var t *TroubleError
		if ctx.Err() == nil && errors.As(err, &t) {
			return &Outcome{Class: t.Class, Reason: t.Error(), trouble: troubleCancelled}
		}
	}
	return nil
}

func newRequest(ctx context.Context, k call, in *input) (*http.Request, error) {
	to, rs := k.url, k.records
	if k.single {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, to, bytes.NewReader(rs[0].Body))
		if err != nil {
			return nil, err
		}
		req.Header = make(http.Header, binaryHeaders+len(rs[0].Attributes))
		setBinaryHeaders(req.Header, rs[0])
		if rs[0].Input != nil {
			req.ContentLength, req.GetBody = rs[0].Input.Size, in.next
			req.Body, err = in.next() //nolint:contextcheck // it has the call's
		}
		return req, err
	}
	// The body is not pooled: the transport may still read it after Do has returned.
	body := appendBatch(make([]byte, 0, batchSize(rs)), rs)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", batchContentType)
	return req, nil
}

func noAnswer(ctx, cctx context.Context, timeout time.Duration, err error) Outcome {
	switch {
	case ctx.Err() != nil:
		return Outcome{Class: NotNow, Reason: "the call was cancelled: " + context.Cause(ctx).Error(), trouble: troubleCancelled}
	case cctx.Err() != nil:
		return Outcome{Class: Failed, TimedOut: true, Reason: "no answer within " + timeout.String(), trouble: troubleTimeout}
	default:
		return Outcome{Class: Failed, Reason: "the connection broke: " + err.Error(), trouble: troubleBroken}
	}
}

// refusedConnection reports whether the request can't have reached a function: nobody listened, the name or
// route to it isn't there (yet), or its certificate isn't trusted.
func refusedConnection(err error) bool {
	var op *net.OpError
	var dns *net.DNSError
	var cert *tls.CertificateVerificationError
	return errors.As(err, &cert) || errors.Is(err, syscall.ECONNREFUSED) || errors.As(err, &dns) || errors.As(err, &op) && op.Op == "dial"
}

// permanent reports whether a status means that the same call will always be refused, unless the mapping says which do:
// 4xx, except those that may be transient, such as while a pod gets ready or a route is being changed (as in Knative's
// data plane, knative.dev/eventing/pkg/kncloudevents).
func permanent(status int) bool {
	switch status {
	case http.StatusNotFound, http.StatusRequestTimeout, http.StatusConflict, http.StatusMisdirectedRequest, http.StatusLocked, http.StatusTooEarly:
		return false
	}
	return status >= 400 && status < 500
}

// classify classifies a response that is not 2xx.
func classify(resp *http.Response, body []byte, refused []int) Outcome {
	o := Outcome{Status: resp.StatusCode, Said: body}
	switch s := resp.StatusCode; {
	case s == http.StatusTooManyRequests || s == http.StatusServiceUnavailable:
		o.Class, o.RetryAfter = NotNow, retryAfter(resp.Header.Get("Retry-After"), time.Now())
	case refused != nil && slices.Contains(refused, s), refused == nil && permanent(s):
		o.Class = Refused
	case s == http.StatusBadGateway || s == http.StatusGatewayTimeout:
		o.Class, o.GatewayErr = Failed, true
	default:
		o.Class = Failed // 5xx, some 4xx; and 1xx and 3xx, which no function should answer
	}
	if o.Problem = problemOf(resp.Header, body); o.Problem != nil {
		body = []byte(cmp.Or(o.Problem.Detail, o.Problem.Title))
	}
	o.Reason = reason(resp.StatusCode, body)
	return o
}

// batchAnswer is AWS's shape of a partial batch response, with a reason for each, which is ours.
type batchAnswer struct {
	BatchItemFailures []struct {
		ItemIdentifier string `json:"itemIdentifier"`
		Reason         string `json:"reason"`
	} `json:"batchItemFailures"`
}

// named reads batchItemFailures of a 2xx answer. Taking for success what names failures in a way that can't be read would
// lose records; so what may name them, and can't be read for certain, is a failure of the whole batch.
func named(status int, a *Answer, rs []*record.Record) Outcome {
	o := Outcome{Class: Done, Status: status}
	unread := func(why string) Outcome {
		return Outcome{Class: Failed, Status: status, Reason: "the answer's batchItemFailures can't be read: " + why}
	}
	if a.unread != nil {
		return unread(a.unread.Error())
	}
	if len(a.Body) > maxAnswerBytes {
		return Outcome{Class: Failed, Status: status, Reason: fmt.Sprintf("the answer is larger than %d bytes", maxAnswerBytes)}
	}
	media, _, _ := mime.ParseMediaType(a.ContentType)
	isJSON := media == "application/json" || strings.HasSuffix(media, "+json")
	body := bytes.TrimSpace(bytes.TrimPrefix(a.Body, []byte("\xef\xbb\xbf")))
	mentioned := mentionsFailures(body)
	switch {
	case len(body) == 0:
		return o
	case body[0] != '{':
		if mentioned {
			return unread("it must be a JSON object")
		}
		if isJSON && !jsontext.Value(body).IsValid() {
			return unread("it is no JSON")
		}
		return o // any other JSON, such as null or a list, and any text name nothing
	}
	var answer batchAnswer
	// Names in any case, as package encoding/json took them; a name that is there twice is an error.
	if err := jsonv2.Unmarshal(body, &answer, jsonv2.MatchCaseInsensitiveNames(true), jsontext.AllowInvalidUTF8(true)); err != nil {
		if !isJSON && !mentioned {
			return o
		}
		return unread(err.Error())
	}
	for _, f := range answer.BatchItemFailures {
		id, err := record.ParseID(f.ItemIdentifier)
		if err != nil || !contains(rs, id) {
			return Outcome{Class: Failed, Status: o.Status, Reason: fmt.Sprintf("batchItemFailures names %.64q, which was not in the batch", f.ItemIdentifier)}
		}
		if o.FailedIDs == nil {
			o.FailedIDs = make(map[record.ID]string, len(answer.BatchItemFailures))
		}
		o.FailedIDs[id] = "named in batchItemFailures"
		if f.Reason != "" {
			o.FailedIDs[id] += ": " + strings.ToValidUTF8(f.Reason, "\uFFFD")
		}
	}
	if len(o.FailedIDs) > 0 {
		o.Reason = fmt.Sprintf("%d records named in batchItemFailures", len(o.FailedIDs))
	}
	return o
}

// mentionsFailures reports whether body has the word, in any case and in any encoding that keeps ASCII's bytes.
func mentionsFailures(body []byte) bool {
	if bytes.IndexByte(body, 0) >= 0 { // UTF-16 and UTF-32
		body = bytes.ReplaceAll(body, []byte{0}, nil)
	}
	return bytes.Contains(bytes.ToLower(body), []byte("batchitemfailures"))
}

func contains(rs []*record.Record, id record.ID) bool {
	for _, r := range rs {
		if r.ID == id {
			return true
		}
	}
	return false
}

func reason(status int, body []byte) string {
	text := strings.ToValidUTF8(strings.TrimSpace(string(body[:min(len(body), maxReasonBytes)])), "")
	if text == "" {
		return strconv.Itoa(status) + " " + http.StatusText(status)
	}
	return strconv.Itoa(status) + " " + http.StatusText(status) + ": " + text
}

// retryAfter reads the Retry-After header (RFC 9110, section 10.2.3): seconds or a date; zero if there
// is none, at most maxRetryAfter.
func retryAfter(h string, now time.Time) time.Duration {
	if h == "" {
		return 0
	}
	if s, err := strconv.Atoi(h); err == nil {
		return time.Duration(min(max(s, 0), int(maxRetryAfter/time.Second))) * time.Second // bounded before it can overflow
	}
	if t, err := http.ParseTime(h); err == nil {
		return min(max(t.Sub(now), 0), maxRetryAfter)
	}
	return 0
}
