package job_test

import (
	"encoding/base64"
	"errors"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/job"
	"github.com/weir-dev/weir/internal/record"
	"github.com/weir-dev/weir/internal/sign"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newRing(t testing.TB, at time.Time) sign.Ring {
	t.Helper()
	ring, _, err := sign.Ring{}.Rotate(at)
	if err != nil {
		t.Fatal(err)
	}
	return ring
}

func newID(t testing.TB) record.ID {
	t.Helper()
	id, err := record.NewID()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestIDs(t *testing.T) {
	now := time.Date(2026, 11, 26, 1, 2, 3, 4_999_999, time.UTC)
	reports, orders := catalog.Key{Namespace: "default", Name: "reports"}, catalog.Key{Namespace: "default", Name: "orders"}
	both := []catalog.Key{orders, reports}
	ring := newRing(t, now)
	id := job.NewID(reports, &record.Record{ID: newID(t)}, now)
	text, err := id.Text(ring)
	if err != nil || len(text) != 60 {
		t.Fatalf("%q, %v", text, err)
	}
	if got, err := job.ParseID(text, ring, both); err != nil || got != id {
		t.Errorf("%+v, %v; want %+v", got, err, id)
	}
	later, _, err := ring.Rotate(now.Add(sign.RotateEvery))
	if err != nil {
		t.Fatal(err)
	}
	if again, err := id.Text(later); err != nil || again != text {
		t.Errorf("after a rotation it is written %q, was %q", again, text)
	}
	if got, err := job.ParseID(text, later, both); err != nil || got != id {
		t.Errorf("after a rotation: %+v, %v", got, err)
	}
	if _, err := id.Text(sign.Ring{}); !errors.Is(err, job.ErrNoKeys) {
		t.Errorf("without keys: %v", err)
	}

	// Whatever is changed: it was never issued.
	raw, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	for i := range raw {
		for bit := range 8 {
			raw[i] ^= 1 << bit
			if got, err := job.ParseID(base64.RawURLEncoding.EncodeToString(raw), ring, both); !errors.Is(err, job.ErrNoID) {
				t.Errorf("byte %d, bit %d: %+v, %v", i, bit, got, err)
			}
			raw[i] ^= 1 << bit
		}
	}
	for _, bad := range []string{"", "x", text + "A", text[:len(text)-4], text[1:] + "=", "/" + text[1:]} {
		if _, err := job.ParseID(bad, ring, both); !errors.Is(err, job.ErrNoID) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if _, err := job.ParseID(text, ring, []catalog.Key{orders}); !errors.Is(err, job.ErrNoID) {
		t.Errorf("of a queue that is not there: %v", err)
	}
	if _, err := job.ParseID(text, newRing(t, now), both); !errors.Is(err, job.ErrNoID) {
		t.Errorf("under other keys: %v", err)
	}
}

func FuzzParseID(f *testing.F) {
	ring := newRing(f, time.Now())
	queue := catalog.Key{Namespace: "default", Name: "q"}
	text, err := job.NewID(queue, &record.Record{ID: newID(f)}, time.Now()).Text(ring)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add("")
	f.Fuzz(func(t *testing.T, s string) {
		id, err := job.ParseID(s, ring, []catalog.Key{queue})
		if err != nil {
			return
		}
		if again, err := id.Text(ring); err != nil || again != s {
			t.Errorf("%q is read, and written as %q (%v)", s, again, err)
		}
	})
}
