package stream_test

import (
	"testing"

	"github.com/weir-dev/weir/internal/record"
	"github.com/weir-dev/weir/internal/testkit"
)

// TestBlockOfALaterVersionIsHeld: it stays in the queue, and what is behind it goes on. What no version can read is
// dead-lettered.
func TestBlockOfALaterVersionIsHeld(t *testing.T) {
	srv := testkit.NATS(t)
	c := testkit.Conn(t, srv)
	q := orders()
	ensure(t, c, q)
	js, err := testkit.Client(t, srv).JetStream()
	if err != nil {
		t.Fatal(err)
	}
	put := func(change func(block []byte)) {
		blocks, err := record.Encode([]record.Record{*newRecord(t, "x")}, record.None)
		if err != nil {
			t.Fatal(err)
		}
		change(blocks[0])
		if _, err := js.Publish("weir.q.default.orders", blocks[0]); err != nil {
			t.Fatal(err)
		}
	}
	const later, damaged, sound = 1, 2, 3 // their sequences
	put(func(b []byte) { b[2] = 3 })      // the next format
	put(func(b []byte) { b[len(b)-1]++ })
	put(func([]byte) {})

	s := open(t, c, q.Key)
	d := next(t, s)
	for ; d.Moved > 0; d = next(t, s) { // stored elsewhere
		if err := d.Ack(); err != nil {
			t.Fatal(err)
		}
	}
	if d.Seq != sound {
		t.Fatalf("block %d was delivered, want %d", d.Seq, sound)
	}
	if err := d.Ack(); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, "all but the one of a later version are settled", func() bool {
		st, err := c.Status(t.Context(), q.Key)
		return err == nil && st.Dead == 1 && st.Pending == 0 && st.InFlight == 0 && st.Retrying == 1
	})
	// A held block doesn't keep the rest from being purged.
	testkit.Eventually(t, "the queue's stream is empty", func() bool {
		st, err := c.Status(t.Context(), q.Key)
		_, perr := c.PurgeSettled(t.Context(), q.Key)
		return err == nil && perr == nil && st.QueueBytes == 0
	})
	m, err := js.GetMsg("WEIR_R_default_orders", later)
	if err != nil || m.Data[2] != 3 {
		t.Errorf("the block of a later version: %v", err)
	}
	if m, err := js.GetLastMsg("WEIR_D_default_orders", "weir.d.default.orders.unreadable.*"); err != nil || m.Data[2] != 2 {
		t.Errorf("the dead letter is not block %d: %v", damaged, err)
	}
	// A later version takes it from there.
	blocks, err := record.Encode([]record.Record{*newRecord(t, "x")}, record.None)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish("weir.r.default.orders.due", blocks[0]); err != nil {
		t.Fatal(err)
	}
	if d := next(t, s); !d.Retry {
		t.Error("what is held among the retries keeps them from going on")
	}
}
