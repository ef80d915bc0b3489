package gateway_test

import (
	"fmt"
	"io"
	"net/http"
	"testing"

	"github.com/weir-dev/weir/internal/catalog"
)

// TestMediaTypes: a body whose media type is none of its route's is refused before it is read, with those that are.
func TestMediaTypes(t *testing.T) {
	f := start(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s", body)
	}), func(c *catalog.Catalog) {
		some := []string{"application/json", "Text/*", "application/*+json"}
		c.APIs[0].Routes = append(c.APIs[0].Routes, catalog.Route{
			Name: "import", Method: "POST", Path: "/imports", MaxBodyBytes: 1, MaxUpload: 1, ContentTypes: some, Job: &catalog.QueueTarget{Queue: key("orders")},
		})
		for i := range c.APIs[0].Routes {
			r := &c.APIs[0].Routes[i]
			switch r.Name {
			case "create":
				r.ContentTypes = []string{"application/*+json"}
			case "raw", "sync":
				r.ContentTypes = some
			case "checked":
				r.ContentTypes = []string{"application/json"}
			}
		}
	})
	type row struct {
		path, media, body string
		status            int
	}
	rows := []row{
		{"/orders", "application/vnd.order+json", `{"sku":"a"}`, 202},
		{"/orders", jsonType, `{"sku":"a"}`, 415},
		{"/orders", "", `{"sku":"a"}`, 415}, // as JSON
		{"/checked", "", `{}`, 200},
		{"/checked", "text/json", `{}`, 415},
	}
	for _, path := range []string{"/raw", "/sync"} {
		done := map[string]int{"/raw": 202, "/sync": 200}[path]
		rows = append(rows,
			row{path, "APPLICATION/json;charset=utf-8", `{}`, done}, row{path, "text/csv", "a,b", done}, row{path, "application/cloudevents+json", `{}`, done},
			row{path, "application/cloudevents-batch+json", `[]`, done}, row{path, "image/png", "x", 415}, row{path, "", "x", 415}, row{path, "json", "x", 415},
			row{path, "text/a, image/png", "x", 415}, row{path, "image/png", "", done},
		)
	}
	for _, row := range rows {
		var header []string
		if row.media != "" {
			header = []string{"Content-Type", row.media}
		}
		r := f.do("POST", row.path, row.body, header...)
		accept := r.header.Get("Accept")
		if r.status != row.status || (accept != "") != (row.status == 415) || accept != "" && r.problem.Type != "https://weir.dev/problems/unsupported-media-type" {
			t.Errorf("%+v: %d %v %s", row, r.status, r.header, r.body)
		}
		if row.status == 415 && row.path == "/raw" && accept != "application/json, Text/*, application/*+json" {
			t.Errorf("Accept: %s", accept)
		}
	}
	if r := f.do("POST", "/sync", "x", "Content-Type", "text/plain", "Content-Type", "image/png"); r.status != 415 {
		t.Errorf("two: %d", r.status)
	}
	for media, want := range map[string]int{"text/csv": 503, "image/png": 415, "": 415} { // it has no keys to sign a URL with
		if r := f.do("POST", "/weir/uploads", fmt.Sprintf(`{"path":"/imports","size":1,"contentType":%q}`, media)); r.status != want {
			t.Errorf("an upload of %s: %d %s", media, r.status, r.body)
		}
	}
	// The answer comes though the body doesn't; what is empty is not refused, whatever its length was said to be.
	const head = " HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
	for sent, want := range map[string]int{
		"POST /raw" + head + "Content-Length: 100\r\n\r\n":                            415,
		"POST /sync" + head + "Content-Length: 100\r\n\r\n":                           415,
		"POST /sync" + head + "Content-Length: 100\r\nExpect: 100-continue\r\n\r\n":   415,
		"POST /sync" + head + "Transfer-Encoding: chunked\r\n\r\n":                    415,
		"POST /sync" + head + "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n": 415,
		"POST /sync" + head + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n":           200,
		"POST /raw" + head + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n":            202,
	} {
		if got, _ := f.raw(sent); got.status != want {
			t.Errorf("%q: %d", sent, got.status)
		}
	}
}
