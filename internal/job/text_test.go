package job

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"
)

// TestStoredText: a state is stored as encoding/json writes it, and read back as it was, with any of its fields left out.
func TestStoredText(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	maybe := func(f func()) {
		if r.IntN(2) == 0 {
			f()
		}
	}
	texts := []string{"a", `"\/` + "\x01\t\n\u2028é😀", "<b>&", "\xff not UTF-8 \xe2\x82", "application/json; charset=\"utf-8\""}
	text := func() string { return texts[r.IntN(len(texts))] }
	at := func() time.Time { return time.Unix(r.Int64N(1<<33), r.Int64N(1e9)/1000*1000).UTC() }
	for range 5000 {
		s := State{Status: []Status{Queued, Running, Succeeded, Failed, Cancelled, Expired}[r.IntN(6)], Created: at()}
		maybe(func() { s.Attempts, s.Redrives = r.IntN(9), r.IntN(3) })
		maybe(func() { s.Started, s.Changed = at(), at() })
		maybe(func() { s.Finished = at() })
		maybe(func() { s.Progress = &Progress{r.Float64() * 100, text()} })
		maybe(func() { s.Error = &Error{r.IntN(600), text(), "", text()} })
		maybe(func() { s.Result = &Result{Size: r.Int64()} })
		if s.Result != nil {
			maybe(func() { s.Result.ContentType = text() })
			maybe(func() { s.Result.Object, s.Result.ETag = text(), text() })
		}
		maybe(func() { s.Print, s.Trace = text(), text() })
		maybe(func() { s.Heartbeat, s.Broken = time.Duration(r.Int64()), true })
		stored, err := s.encode()
		if err != nil {
			t.Fatal(err)
		}
		var want bytes.Buffer
		e := json.NewEncoder(&want)
		e.SetEscapeHTML(false)
		if err := e.Encode(&s); err != nil {
			t.Fatal(err)
		}
		var a, b map[string]any
		if err := json.Unmarshal([]byte(stored), &a); err != nil {
			t.Fatalf("%s: %v", stored, err)
		}
		if err := json.Unmarshal(want.Bytes(), &b); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(a, b) {
			t.Fatalf("stored as\n%s\nnot\n%s", stored, want.Bytes())
		}
		back, err := decode(stored, 7)
		if err != nil {
			t.Fatalf("%s: %v", stored, err)
		}
		again, err := back.encode()
		if err != nil || again != stored {
			t.Fatalf("%s is read and stored as\n%s, %v", stored, again, err)
		}
		for _, c := range stored {
			if c < ' ' {
				t.Fatalf("a header can't hold %q", stored)
			}
		}
	}
}

func BenchmarkStoredText(b *testing.B) {
	now := time.Now()
	s := State{Status: Succeeded, Attempts: 1, Created: now, Started: now, Changed: now, Finished: now, Result: &Result{ContentType: "application/json", Size: 14}}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.encode(); err != nil {
			b.Fatal(err)
		}
	}
}
