package blob

import (
	"errors"
	"io"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/testkit"
)

// TestFull: an object that has no room is refused as a whole, and what was there is as it was.
func TestFull(t *testing.T) {
	s := newNATS(t, catalog.Objects{MaxAge: time.Hour, MaxBytes: 4 << 20})
	big := func(n int64) io.Reader { return io.LimitReader(rand.NewChaCha8([32]byte{}), n) }
	if _, err := s.Put(t.Context(), queue, "a", "", big(3<<20), 3<<20); err != nil {
		t.Fatal(err)
	}
	before := s.messages(t)
	for range 3 { // had one left something, the next would have less room
		if _, err := s.Put(t.Context(), queue, "b", "", big(2<<20), 2<<20); !errors.Is(err, ErrFull) {
			t.Fatal(err)
		}
	}
	nothingStays(t, s, before.Msgs)
	if after := s.messages(t); after.Bytes != before.Bytes {
		t.Errorf("%d bytes became %d", before.Bytes, after.Bytes)
	}
	if got, _ := get(t, s, "a"); len(got) != 3<<20 {
		t.Errorf("%d bytes are left of the object that was there", len(got))
	}
	// Full to the last bytes.
	var err error
	for n := 0; err == nil; n++ {
		_, err = s.Put(t.Context(), queue, "fill"+string(rune('a'+n%26))+strings.Repeat("x", n/26), "", big(40<<10), 40<<10)
	}
	for n := 0; err == nil || errors.Is(err, ErrFull) && n < 40; n++ {
		_, err = s.Put(t.Context(), queue, "last"+strings.Repeat("x", n), "", big(1), 1)
	}
	if err := s.Delete(t.Context(), queue, "a"); err != nil {
		t.Fatalf("delete from a full store: %v", err)
	}
	if _, err := s.Put(t.Context(), queue, "b", "", big(2<<20), 2<<20); err != nil {
		t.Errorf("there is room again: %v", err)
	}
}

// TestReadOfWhatGoes: a reader that was given the first bytes gets an error in the place of bytes that are not there.
func TestReadOfWhatGoes(t *testing.T) {
	const size = 8 << 20
	for what, remove := range map[string]func(t *testing.T, s natsStore){
		"deleted": func(t *testing.T, s natsStore) {
			if err := s.Delete(t.Context(), queue, "a"); err != nil {
				t.Fatal(err)
			}
		},
		"replaced": func(t *testing.T, s natsStore) { put(t, s, "a", "other") },
		"one chunk lost": func(t *testing.T, s natsStore) {
			js := testkit.JetStream(t, s.server)
			st, err := js.Stream(t.Context(), "WEIR_O_default_orders")
			if err != nil {
				t.Fatal(err)
			}
			if err := st.DeleteMsg(t.Context(), 15); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(what, func(t *testing.T) {
			s := newNATS(t, catalog.Objects{MaxAge: time.Hour, MaxBytes: roomy})
			put(t, s, "a", strings.Repeat("x", size))
			o, err := s.Open(t.Context(), queue, "a")
			if err != nil {
				t.Fatal(err)
			}
			defer o.Close()
			if _, err := io.ReadFull(o, make([]byte, 10)); err != nil {
				t.Fatal(err)
			}
			remove(t, s)
			n, err := io.Copy(io.Discard, o)
			if !errors.Is(err, ErrGone) || n >= size-10 {
				t.Errorf("read %d bytes, %v", n, err)
			}
			if _, err := o.Read(make([]byte, 1)); !errors.Is(err, ErrGone) {
				t.Errorf("the error did not stay: %v", err)
			}
		})
	}
}

// TestChangedBytes: a chunk that is another one is found by the digest, before the last bytes are given out.
func TestChangedBytes(t *testing.T) {
	s := newNATS(t, catalog.Objects{MaxAge: time.Hour, MaxBytes: roomy})
	put(t, s, "a", strings.Repeat("x", 1<<20))
	js := testkit.JetStream(t, s.server)
	st, err := js.Stream(t.Context(), "WEIR_O_default_orders")
	if err != nil {
		t.Fatal(err)
	}
	m, err := st.GetMsg(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	m.Data[7]++
	if _, err := js.Publish(t.Context(), m.Subject, m.Data); err != nil {
		t.Fatal(err)
	}
	o, err := s.Open(t.Context(), queue, "a")
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	if n, err := io.Copy(io.Discard, o); !errors.Is(err, ErrGone) || n >= 1<<20 {
		t.Errorf("read %d bytes, %v", n, err)
	}
}

func TestObjectsExpire(t *testing.T) {
	s := newNATS(t, catalog.Objects{MaxAge: 4 * time.Second, MaxBytes: roomy})
	put(t, s, "a", strings.Repeat("x", 8<<20))
	o, err := s.Open(t.Context(), queue, "a")
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	testkit.Eventually(t, "it has expired", func() bool {
		_, err := s.Open(t.Context(), queue, "a")
		return errors.Is(err, ErrNotFound)
	})
	testkit.Eventually(t, "all of it has gone", func() bool { return s.messages(t).Msgs == 0 })
	if n, err := io.Copy(io.Discard, o); !errors.Is(err, ErrGone) || n >= 8<<20 {
		t.Errorf("read %d bytes of an object that expired, %v", n, err)
	}
}

// TestAway: each call ends, with what may be repeated.
func TestAway(t *testing.T) {
	s := newNATS(t, catalog.Objects{MaxAge: time.Hour, MaxBytes: roomy})
	put(t, s, "a", strings.Repeat("x", 8<<20))
	o, err := s.Open(t.Context(), queue, "a")
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	r := io.MultiReader(strings.NewReader(strings.Repeat("x", 1<<20)), readerFunc(func([]byte) (int, error) {
		s.server.Stop()
		return 0, io.EOF
	}))
	if _, err := s.Put(t.Context(), queue, "b", "", r, 2<<20); !errors.Is(err, ErrUnavailable) {
		t.Errorf("Put: %v", err)
	}
	if n, err := io.Copy(io.Discard, o); !errors.Is(err, ErrUnavailable) || n >= 8<<20 {
		t.Errorf("read %d bytes, %v", n, err)
	}
	if _, err := s.Stat(t.Context(), queue, "a"); !errors.Is(err, ErrUnavailable) {
		t.Errorf("Stat: %v", err)
	}
}

func BenchmarkNATS(b *testing.B) {
	for name, size := range map[string]int64{"16KiB": 16 << 10, "1MiB": 1 << 20, "64MiB": 64 << 20} {
		b.Run(name, func(b *testing.B) {
			s := newNATS(b, catalog.Objects{MaxAge: time.Hour, MaxBytes: 1 << 40})
			data := make([]byte, size)
			_, _ = rand.NewChaCha8([32]byte{}).Read(data)
			b.Run("Put", func(b *testing.B) {
				b.SetBytes(size)
				for n := 0; b.Loop(); n++ {
					if _, err := s.Put(b.Context(), queue, strconv.Itoa(n), "", strings.NewReader(string(data)), size); err != nil {
						b.Fatal(err)
					}
				}
			})
			b.Run("Open", func(b *testing.B) {
				b.SetBytes(size)
				for b.Loop() {
					o, err := s.Open(b.Context(), queue, "0")
					if err != nil {
						b.Fatal(err)
					}
					if n, err := io.Copy(io.Discard, o); err != nil || n != size {
						b.Fatal(n, err)
					}
					_ = o.Close()
				}
			})
		})
	}
}
