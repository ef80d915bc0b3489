package app_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/testkit"
)

// browser starts a real one and returns its first page's context.
func browser(t *testing.T) context.Context {
	t.Helper()
	path := ""
	for _, name := range []string{
		"chromium", "chromium-browser", "google-chrome", "google-chrome-stable",
		"/Applications/Google Chrome.app/Contents/MacOS/Google Chrome", "/Applications/Chromium.app/Contents/MacOS/Chromium",
	} {
		if p, err := exec.LookPath(name); err == nil {
			path = p
			break
		}
	}
	if path == "" {
		t.Fatal("no Chromium: run `make deps-test`")
	}
	ctx, cancel := chromedp.NewExecAllocator(context.Background(),
		chromedp.ExecPath(path), chromedp.UserDataDir(t.TempDir()), chromedp.WSURLReadTimeout(testkit.Patience),
		chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU, chromedp.NoFirstRun, chromedp.NoDefaultBrowserCheck,
		// Without these it asks its maker's hosts.
		chromedp.Flag("disable-background-networking", true), chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-sync", true), chromedp.Flag("disable-quic", true), chromedp.Flag("disable-extensions", true),
		chromedp.Flag("disable-dev-shm-usage", true),
	)
	t.Cleanup(cancel)
	ctx, cancelPage := chromedp.NewContext(ctx, chromedp.WithErrorf(t.Logf))
	t.Cleanup(func() {
		if err := chromedp.Cancel(ctx); err != nil { // waits for its end
			t.Log(err)
		}
		cancelPage()
	})
	ctx, cancelTime := context.WithTimeout(ctx, 2*testkit.Patience)
	t.Cleanup(cancelTime)
	return ctx
}

// listen is what a page does: it submits a job and listens to it by both protocols. When the job runs, it cuts a second
// WebSocket off and goes on by another one with the version that it has. By then the promise is kept; done is what was
// told, once the job has ended.
const listen = `(async () => {
	const job = await (await fetch("/reports", {method: "POST", body: "{}"})).json();
	const told = {events: [], socket: [], resumed: []};
	const note = (list, d) => list.push(d.status + (d.result ? " " + JSON.stringify(d.result.data) : ""));
	const runs = [], all = [];
	const each = (list, d, resolve) => { note(list, d); if (d.status === "running") resolve(d.version); };

	const source = new EventSource(job.links.events);
	runs.push(new Promise((resolve, reject) => source.addEventListener("state", e => {
		const d = JSON.parse(e.data);
		if (e.lastEventId !== d.version) reject(new Error("id " + e.lastEventId + " of version " + d.version));
		each(told.events, d, resolve);
	})));
	// The end of the stream is an error to an EventSource. It reconnects by itself, gets 204, and is closed then.
	all.push(new Promise(resolve => source.onerror = () => { if (source.readyState === EventSource.CLOSED) resolve(); }));

	const open = (query, list) => {
		const s = new WebSocket("ws://" + location.host + job.links.socket + query);
		return {
			runs: new Promise(resolve => s.onmessage = e => each(list, JSON.parse(e.data), resolve)),
			open: new Promise(resolve => s.onopen = resolve),
			ended: new Promise((resolve, reject) => s.onclose = e => e.code === 1000 ? resolve() : reject(new Error("closed with " + e.code))),
			close: () => { s.onclose = null; s.close(); },
		};
	};
	const whole = open("", told.socket), first = open("", told.resumed);
	runs.push(whole.runs, first.runs.then(version => {
		first.close();
		const second = open("?after=" + version, told.resumed);
		all.push(second.ended);
		return second.open;
	}));
	all.push(whole.ended);
	await Promise.all(runs);
	window.done = Promise.all(all).then(() => JSON.stringify(told));
	return job.id;
})()`

// TestInABrowser: a page in a real browser sees a job through by EventSource and by WebSocket, each state once, also
// over a lost connection, and its EventSource stays away once the job has ended.
func TestInABrowser(t *testing.T) {
	finish := make(chan struct{})
	j := startJobs(t, func(w http.ResponseWriter, _ *http.Request) {
		<-finish
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"rows":2}`)
	})
	ctx := browser(t)
	if err := chromedp.Do(ctx, chromedp.Navigate(j.url+"/weir/jobs/x")); err != nil {
		t.Fatal(err)
	}
	j.release()
	if _, err := chromedp.Run(ctx, chromedp.Evaluate[string](listen, chromedp.EvalAwaitPromise)); err != nil {
		t.Fatal(err)
	}
	close(finish)
	text, err := chromedp.Run(ctx, chromedp.Evaluate[string]("window.done", chromedp.EvalAwaitPromise))
	if err != nil {
		t.Fatal(err)
	}
	var told map[string][]string
	if err := json.Unmarshal([]byte(text), &told); err != nil {
		t.Fatal(err)
	}
	for _, way := range []string{"events", "socket", "resumed"} {
		got := told[way]
		if len(got) > 0 && got[0] == "queued" { // the dispatcher may have been quicker
			got = got[1:]
		}
		if want := []string{"running", `succeeded {"rows":2}`}; !slices.Equal(got, want) {
			t.Errorf("%s: told %q, want %q", way, told[way], want)
		}
	}
}

// abroad is what a page of another origin does: it uploads, submits, listens and reads all that it needs.
const abroad = `(async (base) => {
	const told = [];
	const say = (what, r) => told.push(what + " " + r.status);
	const feed = await (await fetch(base + "/weir/feeds", {method: "POST"})).json();
	const asked = await fetch(base + "/weir/uploads", {
		method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify({path: "/reports", size: 5, contentType: "text/plain"}),
	});
	say("uploads", asked);
	const upload = await asked.json();
	say("upload", await fetch(base + upload.url, {method: upload.method, headers: {"Content-Type": "text/plain"}, body: "12345"}));
	const posted = await fetch(base + "/reports", {method: "POST", headers: {"Weir-Input": upload.id, "Weir-Feed": feed.id, "Idempotency-Key": "k", "Prefer": "respond-async"}});
	say("submitted", posted);
	const at = posted.headers.get("Operation-Location");
	told.push("applied " + posted.headers.get("Preference-Applied"));
	const job = await posted.json();
	const source = new EventSource(base + job.links.events);
	await new Promise((resolve, reject) => {
		source.addEventListener("state", e => { if (JSON.parse(e.data).status === "succeeded") resolve(); });
		setTimeout(() => reject(new Error("no event")), 20000);
	});
	source.close();
	const polled = await fetch(base + at, {headers: {"Prefer": "wait=5"}});
	say("polled", polled);
	say("again", await fetch(base + at, {headers: {"If-None-Match": polled.headers.get("ETag")}, cache: "no-store"}));
	const result = await fetch(base + job.links.result);
	told.push("result " + await result.text());
	say("nowhere", await fetch(base + "/nowhere"));
	return JSON.stringify(told);
})`

// TestAPageOfAnotherOrigin does in a real browser all that a client does.
func TestAPageOfAnotherOrigin(t *testing.T) {
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(w, "<!doctype html><title>shop</title>")
	}))
	defer page.Close()
	j := startJobsOf(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		answer(w, http.StatusOK, "of "+string(body))
	}, nil, func(c *catalog.Catalog) {
		c.APIs[0].CORS = &catalog.CORS{Origins: []string{page.URL}, Methods: []string{"POST"}, MaxAge: time.Minute}
	})
	j.release()
	ctx := browser(t)
	if err := chromedp.Do(ctx, chromedp.Navigate(page.URL)); err != nil {
		t.Fatal(err)
	}
	text, err := chromedp.Run(ctx, chromedp.Evaluate[string](abroad+`("`+j.url+`")`, chromedp.EvalAwaitPromise))
	if err != nil {
		t.Fatal(err)
	}
	want := `["uploads 201","upload 200","submitted 202","applied respond-async","polled 200","again 304","result of 12345","nowhere 404"]`
	if text != want {
		t.Errorf("told %s", text)
	}
	// A page of yet another origin reads nothing.
	stranger := httptest.NewServer(page.Config.Handler)
	defer stranger.Close()
	if err := chromedp.Do(ctx, chromedp.Navigate(stranger.URL)); err != nil {
		t.Fatal(err)
	}
	if text, err := chromedp.Run(ctx, chromedp.Evaluate[string](abroad+`("`+j.url+`")`, chromedp.EvalAwaitPromise)); err == nil {
		t.Errorf("a stranger's page is told %s", text)
	}
}
