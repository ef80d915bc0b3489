package blob

import (
	"errors"
	"io"
	"net/http"
	"strings"
)

// The ways in which a request is not what its permit allows.
var (
	// ErrMethod means that the permit is for another method.
	ErrMethod = errors.New("blob: the URL is for another method")
	// ErrLength means that the body has not exactly the permitted length, or doesn't say its length.
	ErrLength = errors.New("blob: the Content-Length is not the one that the URL is for")
	// ErrContentType means that the body is of another type.
	ErrContentType = errors.New("blob: the Content-Type is not the one that the URL is for")
)

// Check holds a request against the permit; one for GET allows HEAD too. Reading the body of a request that passes fails
// if it is shorter than its Content-Length: net/http sees to that.
func (p Permit) Check(r *http.Request) error {
	switch {
	case r.Method != p.Method && (r.Method != http.MethodHead || p.Method != http.MethodGet):
		return ErrMethod
	case p.Method != http.MethodPut:
		return nil
	case r.ContentLength != p.Size:
		return ErrLength
	case p.ContentType != "" && r.Header.Get("Content-Type") != p.ContentType:
		return ErrContentType
	}
	return nil
}

// Write answers a request with the object, or one range of it, and keeps its preconditions (RFC 9110, sections 13 and
// 14). What clients stored is never shown as a page of the gateway's: it is an attachment, of its own type and not sniffed
// for another. On an error after the first byte the caller must abort the
// connection (panic(http.ErrAbortHandler)), so that the client sees that the body is not whole.
func (o *Object) Write(w http.ResponseWriter, r *http.Request) error {
	h := w.Header()
	contentType := o.ContentType
	if contentType == "" {
		contentType = DefaultContentType
	}
	h.Set("Content-Type", contentType)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Disposition", "attachment")
	h.Set("Cache-Control", "private, no-store") // the URL alone grants access
	h.Set("ETag", `"`+o.ETag+`"`)
	content := &content{Object: o}
	if ranges := r.Header["Range"]; len(ranges) > 1 || len(ranges) == 1 && strings.Contains(ranges[0], ",") {
		r.Header.Del("Range") // each of many would be a read of its own
	}
	http.ServeContent(w, r, "", o.Stored, content)
	return content.err
}

// content is an object for http.ServeContent, which doesn't tell why it couldn't be read.
type content struct {
	*Object
	err error
}

func (c *content) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		c.err = err
	}
	return n, err
}

// Seek implements io.Seeker.
func (c *content) Seek(offset int64, whence int) (int64, error) {
	s, ok := c.ReadCloser.(io.Seeker)
	if !ok {
		return 0, errors.New("blob: the object can only be read from its beginning")
	}
	return s.Seek(offset, whence)
}
