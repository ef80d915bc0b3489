package gateway_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/weir-dev/weir/internal/catalog"
)

// TestCORS: pages of the origins that an API names may use its routes and Weir's own paths, also when they are refused.
// Others are told nothing, which means no.
func TestCORS(t *testing.T) {
	f := start(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Access-Control-Allow-Origin", "https://function.example")
		w.Header().Set("Access-Control-Allow-Credentials", "true")
	}), func(c *catalog.Catalog) {
		c.APIs[0].CORS = &catalog.CORS{
			Origins: []string{"https://shop.example", "https://*.test"}, Methods: []string{"GET", "POST"}, Headers: []string{"Authorization"}, Expose: []string{"X-Rows"},
			MaxAge: time.Minute,
		}
		public := catalog.API{Key: key("a-public"), CORS: &catalog.CORS{Origins: []string{"*"}, Methods: []string{"GET"}}} // it doesn't name the page
		c.APIs = append([]catalog.API{public}, append(c.APIs, catalog.API{Key: key("closed"), Routes: []catalog.Route{
			{Name: "closed", Method: "POST", Path: "/closed", MaxBodyBytes: 1000, Queue: &catalog.QueueTarget{Queue: key("orders")}},
		}})...)
	})
	const good = "https://shop.example"
	for _, row := range []struct {
		name, method, path, origin, ask, headers string
		allowed                                  bool
		status                                   int
	}{
		{"a preflight", "OPTIONS", "/orders", good, "POST", "authorization,content-type,idempotency-key,prefer", true, 204},
		{"of a subdomain", "OPTIONS", "/orders", "https://a.test", "POST", "", true, 204},
		{"for a head", "OPTIONS", "/orders/7", good, "HEAD", "authorization", true, 204},
		{"a head", "HEAD", "/orders/7", good, "", "", true, 200},
		{"of another origin", "OPTIONS", "/orders", "https://other.example", "POST", "", false, 204},
		{"for another header", "OPTIONS", "/orders", good, "POST", "x-other", false, 204},
		{"for a method that the path has not", "OPTIONS", "/orders", good, "DELETE", "", false, 0},
		{"for an API without", "OPTIONS", "/closed", good, "POST", "", false, 405},
		{"for a job", "OPTIONS", "/weir/jobs/x", good, "DELETE", "if-none-match", true, 204},
		{"for an upload", "OPTIONS", "/weir/uploads", good, "POST", "content-type", true, 204},
		{"for an object", "OPTIONS", "/weir/objects/x", good, "PUT", "content-type", true, 204},
		{"for a job with a header that the API names", "OPTIONS", "/weir/jobs/x", good, "DELETE", "authorization", true, 204},
		{"a write", "POST", "/orders", good, "", "", true, 202},
		{"a write of another origin", "POST", "/orders", "https://other.example", "", "", false, 202},
		{"a call", "GET", "/orders/7", good, "", "", true, 200},
		{"a job", "GET", "/weir/jobs/x", good, "", "", true, 404},
		{"nowhere", "GET", "/nowhere", good, "", "", true, 404},
		{"an API without", "POST", "/closed", good, "", "", false, 202},
	} {
		header := []string{"Origin", row.origin}
		if row.ask != "" {
			header = append(header, "Access-Control-Request-Method", row.ask)
		}
		if row.headers != "" {
			header = append(header, "Access-Control-Request-Headers", row.headers)
		}
		body := ""
		if row.method == "POST" {
			body = `{"sku":"a"}`
		}
		r := f.do(row.method, row.path, body, header...)
		allow := r.header["Access-Control-Allow-Origin"]
		if got := len(allow) == 1 && allow[0] == row.origin; got != row.allowed || !got && len(allow) > 0 && allow[0] != "https://function.example" {
			t.Errorf("%s: %d, allowed %q", row.name, r.status, allow)
		}
		if row.status != 0 && r.status != row.status {
			t.Errorf("%s: %d %s", row.name, r.status, r.body)
		}
		if row.allowed && (!strings.Contains(strings.Join(r.header["Vary"], ","), "Origin") || r.header.Get("Access-Control-Allow-Credentials") != "") {
			t.Errorf("%s: %v", row.name, r.header)
		}
		if exposed := r.header.Get("Access-Control-Expose-Headers"); row.allowed && row.ask == "" && (!strings.Contains(exposed, "Operation-Location") || !strings.Contains(exposed, "X-Rows")) {
			t.Errorf("%s: exposes %s", row.name, exposed)
		}
		if row.allowed && row.ask != "" && r.header.Get("Access-Control-Max-Age") != "60" {
			t.Errorf("%s: max age %s", row.name, r.header.Get("Access-Control-Max-Age"))
		}
	}
	// A cache must not give to a page of another origin what was answered to none.
	if r := f.do("GET", "/orders/7", ""); !strings.Contains(strings.Join(r.header["Vary"], ","), "Origin") {
		t.Errorf("without an Origin: Vary %q", r.header["Vary"])
	}
}
