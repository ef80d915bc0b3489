package coding

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

func encode(t *testing.T, open func(io.Writer) io.WriteCloser, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := open(&b)
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestReaders(t *testing.T) {
	text := strings.Repeat(`{"sku":"a","n":1}`, 1000)
	for _, row := range []struct {
		name string
		open func(io.Writer) io.WriteCloser
	}{
		{"gzip", func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) }},
		{"x-gzip", func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) }},
		{"deflate", func(w io.Writer) io.WriteCloser { return zlib.NewWriter(w) }},
		{"deflate", func(w io.Writer) io.WriteCloser { f, _ := flate.NewWriter(w, 6); return f }},
		{"zstd", func(w io.Writer) io.WriteCloser { z, _ := zstd.NewWriter(w); return z }},
	} {
		body := encode(t, row.open, text)
		if got, err := Decode(row.name, body, int64(len(text))); err != nil || string(got) != text {
			t.Errorf("%s: %d bytes, %v", row.name, len(got), err)
		}
		if _, err := Decode(row.name, body, int64(len(text))-1); !errors.Is(err, ErrTooLarge) {
			t.Errorf("%s: %v", row.name, err)
		}
		r, err := NewReader(row.name, bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(r); err != nil || string(got) != text {
			t.Errorf("%s: %d bytes, %v", row.name, len(got), err)
		}
		_ = r.Close()
		for _, bad := range [][]byte{body[:len(body)-3], []byte("plain text that is none"), body[:1]} {
			r, err := NewReader(row.name, bytes.NewReader(bad))
			if err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(r); err == nil {
				t.Errorf("%s: %d bytes of %d are a whole body: %q", row.name, len(bad), len(body), got)
			}
			_ = r.Close()
		}
	}
	for _, name := range []string{"br", "gzip, gzip", "compress"} {
		if _, err := NewReader(name, strings.NewReader("")); !errors.Is(err, ErrUnsupported) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestOf(t *testing.T) {
	for _, row := range []struct {
		values []string
		want   string
	}{{nil, ""}, {[]string{"identity"}, ""}, {[]string{" GZip "}, "gzip"}, {[]string{"gzip", "br"}, "gzip,br"}} {
		if got := Of(http.Header{"Content-Encoding": row.values}); got != row.want {
			t.Errorf("%q: %q", row.values, got)
		}
	}
}
