package gateway

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/weir-dev/weir/internal/blob"
	"github.com/weir-dev/weir/internal/mediatype"
	"github.com/weir-dev/weir/internal/problem"
)

func compileMedia(spec []string) ([]mediatype.Range, error) {
	out := make([]mediatype.Range, len(spec))
	for i, text := range spec {
		var err error
		if out[i], err = mediatype.Parse(text); err != nil {
			return nil, fmt.Errorf("contentTypes: %q %w", text, err)
		}
	}
	return out, nil
}

// checkMedia refuses a body of a media type that the route doesn't take, before it is read.
func (x *exchange) checkMedia() *problem.Problem {
	if len(x.media) == 0 || x.req.ContentLength == 0 || x.uploaded() {
		return nil
	}
	contentType := x.req.Header.Get("Content-Type")
	if len(x.req.Header["Content-Type"]) > 1 {
		contentType = strings.Join(x.req.Header["Content-Type"], ", ") // which is none
	}
	if x.takes(contentType) || x.ended() {
		return nil
	}
	return x.refuseMedia(x.w.Header())
}

// ended reports whether a body of unknown length has come to its end already, and is empty.
func (x *exchange) ended() bool {
	if x.req.ContentLength > 0 || x.req.Header.Get("Expect") != "" {
		return false
	}
	if n, whole := x.drain(atOnce); n > 0 || !whole {
		return false
	}
	x.req.Body, x.req.ContentLength = http.NoBody, 0
	return true
}

// takes reports whether the route takes bodies of the Content-Type. Without one a body is JSON where there is a schema,
// else it is bytes (RFC 9110, section 8.3).
func (r *route) takes(contentType string) bool {
	switch {
	case len(r.media) == 0:
		return true
	case contentType == "" && r.schema != nil:
		contentType = "application/json"
	case contentType == "":
		contentType = blob.DefaultContentType
	}
	media, ok := mediatype.Of(contentType)
	return ok && slices.ContainsFunc(r.media, func(taken mediatype.Range) bool { return taken.Has(media) })
}

func (r *route) refuseMedia(h http.Header) *problem.Problem {
	accepted := strings.Join(r.spec.ContentTypes, ", ")
	return problemOfMedia(h, accepted, "Content-Type must be one of: "+accepted+" (contentTypes of the route).")
}

// refuseNoJSON answers a body that the schema can't be held against.
func (x *exchange) refuseNoJSON() *problem.Problem {
	accepted := "application/json"
	if !x.takes(accepted) {
		accepted = strings.Join(x.spec.ContentTypes, ", ")
	}
	return problemOfMedia(x.w.Header(), accepted, "This route takes JSON: send Content-Type: "+accepted+".")
}

// problemOfMedia is 415 with Accept (RFC 9110, section 15.5.16).
func problemOfMedia(h http.Header, accepted, detail string) *problem.Problem {
	h.Set("Accept", accepted)
	return &problem.Problem{Status: http.StatusUnsupportedMediaType, Type: problem.UnsupportedMedia, Title: "Unsupported media type", Detail: detail}
}
