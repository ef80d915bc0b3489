package orchestrator

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/weir-dev/weir/internal/egress"
	"github.com/weir-dev/weir/internal/jsontree"
	"github.com/weir-dev/weir/internal/statelang"
)

// arn:aws:states:::http:invoke calls an endpoint of others (developer guide, "Call HTTPS APIs in Step Functions workflows"). Where
// it may go is for package egress to say; there are no connections, so what an endpoint is told to know who calls is in Headers.

const (
	httpTimeout = time.Minute // of request and answer together, as AWS's
	errSocket   = "States.Http.Socket"
	errDenied   = "States.Http.AccessDenied"
	errStatus   = "States.Http.StatusCode."
	headerChars = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!#$%&'*+-.^_`|~" // RFC 9110, section 5.6.2
)

// refusedHeaders are those that a definition can't set (developer guide).
func refusedHeader(name string) bool {
	name = strings.ToLower(name)
	if strings.HasPrefix(name, "x-forwarded-") || strings.HasPrefix(name, "x-amz-") || strings.HasPrefix(name, "x-amzn-") {
		return true
	}
	return slices.Contains([]string{
		"a-im", "accept-charset", "accept-datetime", "accept-encoding", "cache-control", "connection", "content-encoding", "content-md5", "date",
		"expect", "forwarded", "from", "host", "http2-settings", "if-match", "if-modified-since", "if-none-match", "if-range", "if-unmodified-since",
		"max-forwards", "origin", "pragma", "proxy-authorization", "referer", "server", "te", "trailer", "transfer-encoding", "upgrade", "via", "warning",
	}, name)
}

// invokeHTTP is arn:aws:states:::http:invoke: ApiEndpoint, Method, Headers, QueryParameters, RequestBody, Transform.
func (o *Orchestrator) invokeHTTP(ctx context.Context, _ ID, e statelang.Effect) statelang.Event {
	input, _ := e.Input.(*jsontree.Object)
	select {
	case o.calls <- struct{}{}:
		defer func() { <-o.calls }()
	case <-ctx.Done():
		return statelang.Event{}
	}
	outer := ctx
	ctx, cancel := context.WithTimeout(ctx, httpTimeout)
	defer cancel()
	req, err := httpRequest(ctx, input)
	if err != nil {
		return failed(statelang.ErrRuntime, err.Error())
	}
	res, err := o.http.Do(req)
	if err != nil {
		if outer.Err() != nil {
			return statelang.Event{}
		}
		if forbidden, ok := errors.AsType[*egress.ForbiddenError](err); ok { // what its name stands for is not the definition's to know
			return failed(errDenied, fmt.Sprintf("calls to %s are not allowed here", forbidden.Host))
		}
		o.cfg.Log.DebugContext(outer, "an endpoint gave no answer", "state", e.State, "error", err)
		return failed(errSocket, "the endpoint gave no answer")
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(res.Body, statelang.MaxDataBytes+1))
	switch {
	case outer.Err() != nil:
		return statelang.Event{}
	case err != nil:
		return failed(errSocket, "the answer broke off")
	case res.StatusCode < 200 || res.StatusCode > 299:
		return failed(fmt.Sprint(errStatus, res.StatusCode), http.StatusText(res.StatusCode))
	case len(body) > statelang.MaxDataBytes:
		return tooLarge(e.State)
	}
	return httpAnswer(res, body)
}

func httpAnswer(res *http.Response, body []byte) statelang.Event {
	contentType := res.Header.Get("Content-Type")
	media, _, _ := mime.ParseMediaType(contentType)
	for _, bad := range []string{"application/octet-stream", "image/", "video/", "audio/"} {
		if strings.HasPrefix(media, bad) {
			return failed(statelang.ErrRuntime, fmt.Sprintf("Unsupported response content-type '%s'.", media))
		}
	}
	if !utf8.Valid(body) {
		return failed(statelang.ErrRuntime, "the answer is no text")
	}
	headers := jsontree.NewObject(len(res.Header))
	for _, name := range sortedNames(res.Header) {
		values := make([]any, len(res.Header[name]))
		for i, v := range res.Header[name] {
			values[i] = v
		}
		headers.Set(name, values)
	}
	out := jsontree.Of("Headers", headers)
	if len(body) > 0 {
		var v any = string(body)
		if media == jsonContent || strings.HasSuffix(media, "+json") {
			if parsed, err := jsontree.Parse(body); err == nil {
				v = parsed
			}
		}
		out.Set("ResponseBody", v)
	}
	out.Set("StatusCode", json.Number(fmt.Sprint(res.StatusCode)))
	out.Set("StatusText", http.StatusText(res.StatusCode))
	return statelang.Event{Kind: statelang.Succeeded, Output: out}
}

func sortedNames(h http.Header) []string {
	names := make([]string, 0, len(h))
	for name := range h {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func httpRequest(ctx context.Context, input *jsontree.Object) (*http.Request, error) {
	endpoint, _ := textOf(input, "ApiEndpoint")
	method, _ := textOf(input, "Method")
	if endpoint == "" || !slices.Contains([]string{"GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD"}, method) {
		return nil, errors.New("http:invoke needs an ApiEndpoint and a Method: GET, POST, PUT, DELETE, PATCH, OPTIONS or HEAD")
	}
	for _, name := range []string{"Authentication", "InvocationConfig"} {
		if _, there := valueOf(input, name); there {
			return nil, fmt.Errorf("%s: there are no connections here; give what the endpoint asks for in Headers", name)
		}
	}
	u, err := url.Parse(endpoint)
	if err != nil {
		return nil, errors.New("the ApiEndpoint is no URL")
	}
	if v, _ := valueOf(input, "QueryParameters"); v != nil {
		query, ok := v.(*jsontree.Object)
		if !ok {
			return nil, errors.New("QueryParameters must be an object")
		}
		more, err := encodeForm(query, "REPEAT")
		if err != nil {
			return nil, fmt.Errorf("QueryParameters: %w", err)
		}
		u.RawQuery = strings.Trim(u.RawQuery+"&"+more, "&")
	}
	body, err := httpBody(input)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), bytes.NewReader(body))
	if err != nil {
		return nil, errors.New("the ApiEndpoint is no URL")
	}
	req.Header.Set("User-Agent", "weir")
	if body != nil {
		req.Header.Set("Content-Type", "application/json; charset=UTF-8")
	}
	return req, setHeaders(req.Header, input)
}

func setHeaders(h http.Header, input *jsontree.Object) error {
	v, _ := valueOf(input, "Headers")
	if v == nil {
		return nil
	}
	given, ok := v.(*jsontree.Object)
	if !ok {
		return errors.New("Headers must be an object") //nolint:staticcheck // a field's name
	}
	for name, v := range given.All() {
		if refusedHeader(name) {
			return fmt.Errorf("The 'Headers' field contains unsupported values: [%s]", strings.ToLower(name)) //nolint:staticcheck // AWS's text
		}
		values, isList := v.([]any)
		if !isList {
			values = []any{v}
		}
		if strings.Trim(name, headerChars) != "" || name == "" {
			return fmt.Errorf("%q is no name of a header", name)
		}
		h.Del(name)
		for _, v := range values {
			text, ok := v.(string)
			if !ok {
				return fmt.Errorf("the header %s must be a text, or an array of texts", name)
			}
			if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
				return fmt.Errorf("the header %s has a control character", name)
			}
			h.Add(name, text)
		}
	}
	return nil
}

// httpBody is what is sent: a text as it is, and anything else as JSON, or as a form.
func httpBody(input *jsontree.Object) ([]byte, error) {
	v, there := valueOf(input, "RequestBody")
	if !there {
		return nil, nil
	}
	transform, _ := valueOf(input, "Transform")
	how, _ := transform.(*jsontree.Object)
	switch encoding, _ := textOf(how, "RequestBodyEncoding"); encoding {
	case "", "NONE":
	case "URL_ENCODED":
		form, ok := v.(*jsontree.Object)
		if !ok {
			return nil, errors.New("a RequestBody that is URL_ENCODED must be an object")
		}
		options, _ := valueOf(how, "RequestEncodingOptions")
		o, _ := options.(*jsontree.Object)
		format, given := textOf(o, "ArrayFormat")
		if !given {
			format = "INDICES"
		}
		text, err := encodeForm(form, format)
		return []byte(text), err
	default:
		return nil, fmt.Errorf("RequestBodyEncoding is %q: it must be NONE or URL_ENCODED", encoding)
	}
	if text, ok := v.(string); ok {
		return []byte(text), nil
	}
	return jsontree.Append(nil, v)
}

// encodeForm writes names and values for a URL: a blank as %20, members of objects as name[member], and arrays as format says.
func encodeForm(o *jsontree.Object, format string) (string, error) {
	if !slices.Contains([]string{"INDICES", "REPEAT", "COMMAS", "BRACKETS"}, format) {
		return "", fmt.Errorf("ArrayFormat is %q: it must be INDICES, REPEAT, COMMAS or BRACKETS", format)
	}
	var pairs []string
	pair := func(name string, v any) error {
		text, err := scalar(v)
		pairs = append(pairs, escape(name)+"="+escape(text))
		return err
	}
	var walk func(name string, v any) error
	walk = func(name string, v any) error {
		switch v := v.(type) {
		case *jsontree.Object:
			for member, value := range v.All() {
				if err := walk(name+"["+member+"]", value); err != nil {
					return err
				}
			}
			return nil
		case []any:
			if format == "COMMAS" {
				texts := make([]string, len(v))
				for i := range v {
					var err error
					if texts[i], err = scalar(v[i]); err != nil {
						return err
					}
				}
				return pair(name, strings.Join(texts, ","))
			}
			for i := range v {
				under := map[string]string{"INDICES": fmt.Sprintf("%s[%d]", name, i), "BRACKETS": name + "[]", "REPEAT": name}[format]
				if err := walk(under, v[i]); err != nil {
					return err
				}
			}
			return nil
		}
		return pair(name, v)
	}
	for name, v := range o.All() {
		if err := walk(name, v); err != nil {
			return "", err
		}
	}
	return strings.Join(pairs, "&"), nil
}

func escape(text string) string { return strings.ReplaceAll(url.QueryEscape(text), "+", "%20") }

// scalar is a value as a text: what is no text as in JSON.
func scalar(v any) (string, error) {
	switch v := v.(type) {
	case string:
		return v, nil
	case nil:
		return "", nil
	case *jsontree.Object, []any:
		return "", errors.New("an array or an object can't be in an array that is joined by commas")
	}
	text, err := jsontree.Append(nil, v)
	return string(text), err
}
