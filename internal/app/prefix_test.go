package app_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/testkit"
)

// TestBelowAPath: behind a proxy that takes a prefix off, a client gets everywhere by the addresses that it is given, and
// a function calls the gateway without it.
func TestBelowAPath(t *testing.T) {
	callbacks := make(chan string, 1)
	j := startJobsAt(t, "/shop/v1", func(w http.ResponseWriter, r *http.Request) {
		switch body, _ := io.ReadAll(r.Body); string(body) {
		case "goes on":
			w.WriteHeader(http.StatusAccepted)
			callbacks <- r.Header.Get("Weir-Callback")
		default:
			_, _ = io.Copy(w, noise(1, 1<<20))
		}
	}, nil, func(*catalog.Catalog) {})
	j.release()
	inner, err := url.Parse(j.url)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httptest.NewServer(http.StripPrefix("/shop/v1", httputil.NewSingleHostReverseProxy(inner)))
	t.Cleanup(proxy.Close)
	j.url = proxy.URL
	t.Cleanup(j.stop) // before the proxy, whose connections it ends

	below := func(addresses ...string) {
		t.Helper()
		for _, a := range addresses {
			if !strings.HasPrefix(a, "/shop/v1/weir/") {
				t.Errorf("a client is sent to %q", a)
			}
		}
	}
	f := j.do("POST", "/shop/v1/weir/feeds", "")
	below(f.header.Get("Location"), f.doc.Links.Events, f.doc.Links.Socket)
	feed := j.raw("GET", f.doc.Links.Events, nil, 0)
	if feed.StatusCode != http.StatusOK {
		t.Fatalf("a feed: %s", feed.Status)
	}
	r := j.do("POST", "/shop/v1/reports", "goes on", "Weir-Feed", f.doc.ID)
	links := r.doc.Links
	below(r.header.Get("Location"), r.header.Get("Operation-Location"), links.Self, links.Result, links.Events, links.Socket)
	ws, _, err := websocket.Dial(t.Context(), j.url+links.Socket, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, pushed, err := ws.Read(t.Context())
	if err != nil || !strings.Contains(string(pushed), `"self":"`+links.Self+`"`) {
		t.Errorf("pushed: %s, %v", pushed, err)
	}
	_ = ws.CloseNow()
	callback := <-callbacks
	if !strings.HasPrefix(callback, inner.String()+"/weir/callbacks/") {
		t.Errorf("the function is sent to %s", callback)
	}
	done := &jobs{t: t, url: callback}
	if r := done.do("POST", "?status=succeeded", "done"); r.status != http.StatusNoContent {
		t.Errorf("called back: %+v", r)
	}
	if events := j.do("GET", links.Events, "").body; !strings.Contains(events, `"self":"`+links.Self+`"`) { // it ends with the job
		t.Errorf("events: %s", events)
	}
	for told := bufio.NewScanner(feed.Body); ; {
		if !told.Scan() {
			t.Fatal("the feed has ended")
		}
		if data, ok := strings.CutPrefix(told.Text(), "data: "); ok {
			if !strings.Contains(data, `"self":"`+links.Self+`"`) {
				t.Errorf("the feed tells %s", data)
			}
			break
		}
	}
	_ = feed.Body.Close()

	r = j.do("POST", "/shop/v1/weir/uploads", fmt.Sprintf(`{"path": "/reports", "size": %d}`, 5))
	u := decode[upload](t, r.body)
	below(u.URL)
	j.put(u, strings.NewReader("large"), 5)
	path := j.do("POST", "/shop/v1/reports", "", "Weir-Input", u.ID).doc.Links.Self
	testkit.Eventually(t, "the large result is there", func() bool { return j.do("GET", path, "").doc.Status == "succeeded" })
	resp := j.raw("GET", path+"/result", nil, 0)
	_ = resp.Body.Close()
	below(resp.Header.Get("Location"))
	if r := j.do("GET", path+"/result", ""); r.status != http.StatusOK || len(r.body) != 1<<20 {
		t.Errorf("a large result: %d, %d bytes", r.status, len(r.body))
	}
	// A path with a cleaner form.
	for _, path := range []string{"/shop/v1//reports", "/shop/v1/weir//feeds"} {
		resp := j.raw("POST", path, nil, 0)
		_ = resp.Body.Close()
		if want := strings.Replace(path, "//", "/", 1); resp.StatusCode != http.StatusTemporaryRedirect || resp.Header.Get("Location") != want {
			t.Errorf("%s: %d %s", path, resp.StatusCode, resp.Header.Get("Location"))
		}
	}
}
