package stream_test

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/weir-dev/weir/internal/record"
	"github.com/weir-dev/weir/internal/stream"
	"github.com/weir-dev/weir/internal/testkit"
)

// TestDeadLettersAreReadInBatches has many blocks, some of them large, and none of them read beyond what was asked for.
func TestDeadLettersAreReadInBatches(t *testing.T) {
	s := testkit.NATS(t)
	c := testkit.Conn(t, s)
	q := orders()
	ensure(t, c, q)
	const blocks = 200
	for i := range blocks {
		r := newRecord(t, fmt.Sprint(i))
		if i%20 == 7 { // more than one batch's bytes together
			r = dense(t, 700<<10)
		}
		if err := c.DeadLetter(t.Context(), q.Key, stream.Refused, []record.Record{*r}); err != nil {
			t.Fatal(err)
		}
	}
	nc := testkit.Client(t, s)
	spy, err := nc.SubscribeSync("$JS.API.DIRECT.GET.WEIR_D_default_orders")
	if err != nil {
		t.Fatal(err)
	}
	asked := func() (requests, most int) {
		t.Helper()
		if err := nc.Flush(); err != nil {
			t.Fatal(err)
		}
		for {
			m, err := spy.NextMsg(0)
			if err != nil {
				return requests, most
			}
			var r struct{ Batch int }
			if err := json.Unmarshal(m.Data, &r); err != nil {
				t.Fatal(err)
			}
			requests++
			most += r.Batch
		}
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	n := 0
	for b, err := range c.DeadLettersFrom(t.Context(), q.Key, 0, 5) {
		if err != nil || len(b.Records) != 1 || !b.More {
			t.Fatalf("%+v, %v", b, err)
		}
		if n++; n == 5 {
			break
		}
	}
	if requests, most := asked(); requests != 1 || most != 5 {
		t.Errorf("five of %d: %d requests for at most %d", blocks, requests, most)
	}
	var seqs []uint64
	for b, err := range c.DeadLetters(t.Context(), q.Key) {
		if err != nil {
			t.Fatal(err)
		}
		if len(seqs) > 0 && b.Seq != seqs[len(seqs)-1]+1 || b.Time.IsZero() || b.More != (len(seqs) < blocks-1) {
			t.Errorf("block %d after %v: %v, more %t", b.Seq, seqs, b.Time, b.More)
		}
		seqs = append(seqs, b.Seq)
	}
	if requests, _ := asked(); len(seqs) != blocks || requests > 10 {
		t.Errorf("%d of %d, by %d requests", len(seqs), blocks, requests)
	}
}

func TestPurgeDeadReadsNothing(t *testing.T) {
	s := testkit.NATS(t)
	c := testkit.Conn(t, s)
	q := orders()
	ensure(t, c, q)
	die := func(n int) {
		t.Helper()
		rs := make([]record.Record, 0, n)
		for range n {
			rs = append(rs, *newRecord(t, "x"))
		}
		if err := c.DeadLetter(t.Context(), q.Key, stream.Refused, rs); err != nil {
			t.Fatal(err)
		}
	}
	die(1)
	die(3)
	nc := testkit.Client(t, s)
	reads, err := nc.SubscribeSync("$JS.API.DIRECT.GET.>")
	if err != nil {
		t.Fatal(err)
	}
	purges, err := nc.SubscribeSync("$JS.API.STREAM.PURGE.>")
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	n, err := c.PurgeDead(t.Context(), q.Key)
	if err != nil || n != 2 {
		t.Errorf("%d messages, %v", n, err)
	}
	if st, err := c.Status(t.Context(), q.Key); err != nil || st.Dead != 0 {
		t.Errorf("%+v, %v", st, err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	if m, err := purges.NextMsg(0); err != nil || string(m.Data) != `{"seq":3}` {
		t.Errorf("it purges %v, %v: what dies meanwhile is not to go", m, err)
	}
	if m, err := reads.NextMsg(0); err == nil {
		t.Errorf("it read: %s %s", m.Subject, m.Data)
	}
}
