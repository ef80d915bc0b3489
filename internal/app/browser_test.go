package app_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os/exec"
	"slices"
	"testing"

	"github.com/chromedp/chromedp"

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
