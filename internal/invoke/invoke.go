// Package invoke calls functions over HTTP: the CloudEvents binding, the classes of outcomes, the
// adaptive limit of calls in flight, and the pass-through of synchronous requests. It is the only
// caller of functions.
//
// Invariants: a call's outcome is one of four classes and never an error besides; a call that was
// throttled is never counted as failed; no more calls are in flight than the limiter's cap.
//
// May import: record, catalog.
package invoke

import (
	"bytes"
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
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/weir-dev/weir/internal/record"
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
	GatewayErr bool                 // 502 or 504: Failed, unless no instance is ready (see Limiter)
}

// Bounds of a function's answer to a batch.
const (
	maxAnswerBytes = 1 << 20
	maxReasonBytes = 256 // of the answer's body that goes into a reason
	maxRetryAfter  = 5 * time.Minute
)

// Caller calls functions. It is safe for concurrent use.
type Caller struct {
	http *http.Client
}

// NewCaller returns a caller that keeps at most maxIdle idle connections to each function.
func NewCaller(maxIdle int) *Caller {
	return &Caller{http: &http.Client{
		Transport: transport(maxIdle),
		// A function that redirects is misconfigured: following would turn a POST into a GET.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

func transport(maxIdle int) *http.Transport {
	return &http.Transport{
		DialContext:         (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		MaxIdleConns:        0,
		MaxIdleConnsPerHost: maxIdle,
		IdleConnTimeout:     90 * time.Second,
		WriteBufferSize:     64 << 10,
		ReadBufferSize:      16 << 10,
		DisableCompression:  true, // what passes through keeps its encoding
	}
}

// Close drops idle connections.
func (c *Caller) Close() { c.http.CloseIdleConnections() }

// Answer is a function's answer to one record.
type Answer struct {
	ContentType string
	Body        []byte
}

// Batch is a call that needs only the outcome of its records.
type Batch struct {
	URL     string
	Records []*record.Record
	Single  bool          // send the one record in CloudEvents' binary mode, else a JSON batch
	Timeout time.Duration // of the whole call
	// Permanent are the statuses that are Refused; nil for the default (permanent).
	Permanent []int
}

// Call posts a batch and classifies the answer. ctx ending before the timeout gives NotNow, because it says nothing about
// the records.
func (c *Caller) Call(ctx context.Context, b Batch) Outcome {
	o, a := c.exchange(ctx, call{url: b.URL, records: b.Records, single: b.Single, timeout: b.Timeout, permanent: b.Permanent, limit: maxAnswerBytes})
	if a == nil {
		return o
	}
	return named(o.Status, a, b.Records)
}

// HeaderCallback holds the URL to which a function that goes on after its answer reports how the work goes.
const HeaderCallback = "Weir-Callback"

// Question is a call whose answer is kept.
type Question struct {
	URL      string
	Record   *record.Record
	Timeout  time.Duration
	Callback string // HeaderCallback; empty if none
	// Permanent is as in Batch.
	Permanent []int
	// Open opens what is sent instead of the record's body, when that has an Input. It may be called more than once.
	Open func(context.Context) (io.ReadCloser, error)
	// Limit is how many bytes of the answer are returned. A longer one goes to Keep, from its beginning on.
	Limit int
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
	o, a := c.exchange(ctx, call{
		url: q.URL, records: []*record.Record{q.Record}, single: true, timeout: q.Timeout, permanent: q.Permanent, limit: q.Limit, callback: q.Callback,
		open: q.Open, keep: q.Keep,
	})
	if a == nil {
		return o, Answer{}
	}
	return o, *a
}

type call struct {
	url       string
	records   []*record.Record
	single    bool
	timeout   time.Duration
	permanent []int
	limit     int
	callback  string
	open      func(context.Context) (io.ReadCloser, error)
	keep      func(context.Context, string, io.Reader) error // nil if none: then up to limit+1 bytes are returned
}

// exchange returns the answer of a call that succeeded, at most limit+1 bytes of its body, else nil.
func (c *Caller) exchange(ctx context.Context, k call) (Outcome, *Answer) {
	cctx, cancel := context.WithTimeout(ctx, k.timeout)
	defer cancel()
	var connected atomic.Bool
	tctx := httptrace.WithClientTrace(cctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { connected.Store(true) }})
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
		return Outcome{Class: Failed, Reason: "the request can't be built: " + err.Error()}, nil
	}
	if k.callback != "" {
		req.Header.Set(HeaderCallback, k.callback)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if o := troubled(ctx, input.failure(), err); o != nil {
			return *o, nil
		}
		if !connected.Load() && ctx.Err() == nil {
			return Outcome{Class: NotNow, Reason: "no connection: " + err.Error()}, nil
		}
		return noAnswer(ctx, cctx, k.timeout, err), nil
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, int64(k.limit)+1))
	success := resp.StatusCode >= 200 && resp.StatusCode < 300
	contentType := resp.Header.Get("Content-Type")
	if err == nil && success && k.keep != nil && len(body) > k.limit {
		err = k.keep(cctx, contentType, io.MultiReader(bytes.NewReader(body), resp.Body))
		body = nil
	}
	if err != nil {
		// A failure of the input may be why the function cut its answer.
		if o := troubled(ctx, input.failure(), err); o != nil {
			return *o, nil
		}
		o := noAnswer(ctx, cctx, k.timeout, err)
		o.Status = resp.StatusCode
		return o, nil
	}
	if success {
		return Outcome{Class: Done, Status: resp.StatusCode}, &Answer{ContentType: contentType, Body: body}
	}
	return classify(resp, body, k.permanent), nil
}

// troubled is the outcome of the first of errs that is a TroubleError, unless the call was cut; nil if none is.
func troubled(ctx context.Context, errs ...error) *Outcome {
	for _, err := range errs {
		var t *TroubleError
		if ctx.Err() == nil && errors.As(err, &t) {
			return &Outcome{Class: t.Class, Reason: t.Error()}
		}
	}
	return nil
}

func newRequest(ctx context.Context, k call, in *input) (*http.Request, error) {
	url, rs := k.url, k.records
	if k.single {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(rs[0].Body))
		if err != nil {
			return nil, err
		}
		setBinaryHeaders(req.Header, rs[0])
		if rs[0].Input != nil {
			req.ContentLength, req.GetBody = rs[0].Input.Size, in.next
			req.Body, err = in.next() //nolint:contextcheck // it has the call's
		}
		return req, err
	}
	// The body is not pooled: the transport may still read it after Do has returned.
	body := appendBatch(make([]byte, 0, batchSize(rs)), rs)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", batchContentType)
	return req, nil
}

func noAnswer(ctx, cctx context.Context, timeout time.Duration, err error) Outcome {
	switch {
	case ctx.Err() != nil:
		return Outcome{Class: NotNow, Reason: "the call was cancelled: " + context.Cause(ctx).Error()}
	case cctx.Err() != nil:
		return Outcome{Class: Failed, Reason: "no answer within " + timeout.String()}
	default:
		return Outcome{Class: Failed, Reason: "the connection broke: " + err.Error()}
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
	o := Outcome{Status: resp.StatusCode}
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
	o.Reason = reason(resp.StatusCode, body)
	return o
}

// named reads batchItemFailures of a 2xx answer. An answer that names what was not sent, or can't be
// read although it claims to be JSON, is a failure of the whole batch: taking it for success could lose
// records.
func named(status int, a *Answer, rs []*record.Record) Outcome {
	o := Outcome{Class: Done, Status: status}
	media, _, _ := mime.ParseMediaType(a.ContentType)
	isJSON := media == "application/json" || strings.HasSuffix(media, "+json")
	body := bytes.TrimSpace(a.Body)
	if len(body) == 0 || !isJSON && body[0] != '{' {
		return o
	}
	if len(body) > maxAnswerBytes && isJSON {
		return Outcome{Class: Failed, Status: o.Status, Reason: fmt.Sprintf("the answer is larger than %d bytes", maxAnswerBytes)}
	}
	var answer struct {
		BatchItemFailures []struct {
			ItemIdentifier string `json:"itemIdentifier"`
			Reason         string `json:"reason"` // ours; AWS's shape has only the identifier
		} `json:"batchItemFailures"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		// Any JSON that is no object, such as null or a list, names nothing.
		var wrongType *json.UnmarshalTypeError
		if !isJSON || errors.As(err, &wrongType) && wrongType.Field == "" {
			return o
		}
		return Outcome{Class: Failed, Status: o.Status, Reason: "the answer's batchItemFailures can't be read: " + err.Error()}
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
			o.FailedIDs[id] += ": " + f.Reason
		}
	}
	if len(o.FailedIDs) > 0 {
		o.Reason = fmt.Sprintf("%d records named in batchItemFailures", len(o.FailedIDs))
	}
	return o
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
