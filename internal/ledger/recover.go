package ledger

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sort"

	"github.com/weir-dev/weir/internal/stream"
)

const (
	// maxTakeOver bounds how often the log may move while this process tries to become the owner: who has the lease is alone.
	maxTakeOver = 5
	// maxReplay bounds the bytes of states that are made of the log at a time.
	maxReplay = 8 << 20
	// maxRestoring bounds the states that are looked up and put at a time.
	maxRestoring = 256
)

// takeOver fences off the owner before, and shows what it has left. It returns up to which block all was shown before.
func (o *Owner) takeOver(ctx context.Context) (shown uint64, err error) {
	var end stream.LedgerEnd
	for try := 1; ; try++ {
		whole, err := o.conn.StatesWhole(ctx, o.queue)
		if err != nil {
			return 0, err
		}
		if end, err = o.conn.LedgerEnd(ctx, o.queue); err != nil {
			return 0, err
		}
		if shown, err = o.shownBy(ctx, end); err != nil {
			return 0, err
		}
		from := max(shown+1, end.First)
		if !whole {
			from = max(end.First, 1)
		}
		o.last = end.Last
		fence := &block{writer: o.me, shown: shown}
		seq, err := o.append(ctx, fence.encode(), 0)
		if errors.Is(err, ErrLost) && try < maxTakeOver {
			continue
		}
		if errors.Is(err, stream.ErrQueueFull) && try < maxTakeOver && o.purgeOld(ctx, end, shown) {
			continue
		}
		if err != nil {
			return 0, err
		}
		o.last, o.number = seq, 1
		o.floor, o.lossy = shown, !whole
		restored, err := o.replay(ctx, from, end.Last)
		if err != nil {
			return 0, err
		}
		if whole {
			return shown, nil
		}
		if o.full { // who looks would see what was replaced
			return 0, ErrFull
		}
		if restored > 0 {
			o.log.WarnContext(ctx, "NATS was started anew; states that it had lost were restored", "states", restored)
		}
		return shown, o.conn.ConfirmStates(ctx, o.queue)
	}
}

// purgeOld removes the blocks that an owner would have removed by now: a full log takes no fence, and without it there is no
// owner. It reports whether there were any.
func (o *Owner) purgeOld(ctx context.Context, end stream.LedgerEnd, shown uint64) bool {
	if shown < end.First {
		return false
	}
	n := sort.Search(int(shown-end.First+1), func(i int) bool {
		young, seq := true, end.First+uint64(i)
		err := o.conn.ReadLedger(ctx, o.queue, seq, seq, func(l stream.LedgerBlock) error {
			young = o.conn.Now().Sub(l.Stored) < keepBlocks
			return nil
		})
		return err != nil || young
	})
	return n > 0 && o.conn.PurgeLedger(ctx, o.queue, min(end.First+uint64(n), end.Last)) == nil
}

// shownBy is up to which block all was shown, as the last block says.
func (o *Owner) shownBy(ctx context.Context, end stream.LedgerEnd) (uint64, error) {
	if end.Last < end.First || end.Last == 0 {
		return end.Last, nil
	}
	b, err := o.read(ctx, end.Last)
	if err != nil {
		return 0, err
	}
	return b.shown, nil
}

// read reads one block.
func (o *Owner) read(ctx context.Context, seq uint64) (b *block, err error) {
	err = o.conn.ReadLedger(ctx, o.queue, seq, seq, func(l stream.LedgerBlock) (err error) {
		b, err = decode(l.Data)
		return err
	})
	return b, err
}

// replay makes states of the blocks from one to another, where later ones are not there already. It returns how many it made.
func (o *Owner) replay(ctx context.Context, from, to uint64) (made int, err error) {
	latest, size := map[string]stream.StoredState{}, 0
	flush := func() error {
		n, err := o.restore(ctx, latest)
		made += n
		clear(latest)
		size = 0
		return err
	}
	err = o.conn.ReadLedger(ctx, o.queue, from, to, func(l stream.LedgerBlock) error {
		b, err := decode(l.Data)
		if err != nil {
			return fmt.Errorf("block %d: %w", l.Seq, err)
		}
		for _, e := range b.entries {
			size += e.size() - len(latest[e.key].Body)
			latest[e.key] = stream.StoredState{Header: e.Header, Body: e.Body, TTL: e.TTL, Version: l.Seq}
		}
		if size < maxReplay {
			return nil
		}
		return flush()
	})
	return made, errors.Join(err, flush())
}

// restore puts states, unless later ones are there. It returns how many it has put.
func (o *Owner) restore(ctx context.Context, latest map[string]stream.StoredState) (made int, err error) {
	for keys := range slices.Chunk(slices.Collect(maps.Keys(latest)), maxRestoring) {
		n, err := o.restoreSome(ctx, keys, latest)
		made += n
		if err != nil {
			return made, err
		}
	}
	return made, nil
}

func (o *Owner) restoreSome(ctx context.Context, keys []string, latest map[string]stream.StoredState) (made int, err error) {
	there, err := o.conn.LoadStates(ctx, o.queue, keys)
	if err != nil {
		return 0, err
	}
	pending := map[string]*stream.PendingState{}
	var again []string // one by one
	for _, key := range keys {
		s, present := latest[key], there[key]
		if _, known := there[key]; !known {
			again = append(again, key)
			continue
		}
		if present.Version >= s.Version {
			continue
		}
		if err := o.putsAgain(ctx); err != nil {
			return made, err
		}
		s.Seq = present.Seq
		if pending[key], err = o.conn.PutState(o.queue, stream.StatePut{Key: key, StoredState: s}); err != nil {
			return made, err
		}
		latest[key] = s
	}
	for key, p := range pending {
		switch _, err := p.Wait(ctx); {
		case errors.Is(err, stream.ErrJobChanged):
			again = append(again, key)
		case errors.Is(err, stream.ErrQueueFull):
			o.showLater(key, latest[key], there[key].Version)
		case err != nil:
			return made, err
		default:
			made++
		}
	}
	for _, key := range again {
		put, err := o.restoreOne(ctx, key, latest[key])
		if err != nil {
			return made, err
		}
		if put {
			made++
		}
	}
	return made, nil
}

// putsAgain is called before a state is put again.
func (o *Owner) putsAgain(ctx context.Context) error {
	if !o.lossy {
		return nil
	}
	o.lossy = false // once is enough
	return o.conn.RenewStates(ctx, o.queue)
}

// showLater has a durable state, for which there is no room now, shown when there is. present can be looked up.
func (o *Owner) showLater(key string, s stream.StoredState, present uint64) {
	v := Value{Header: s.Header, Body: s.Body, TTL: s.TTL}
	c := &Cell{key: key, loaded: make(chan struct{}), value: v, durable: v, version: s.Version, shown: present, seq: s.Seq, queued: true}
	close(c.loaded)
	e := entry{key, v}
	o.mu.Lock()
	defer o.mu.Unlock()
	c.size = e.size()
	o.bytes, o.full = o.bytes+c.size, true
	o.cells[key], o.unshown[c] = c, struct{}{}
	o.toShow = append(o.toShow, c)
	signal(o.dirty)
}

func (o *Owner) restoreOne(ctx context.Context, key string, s stream.StoredState) (put bool, err error) {
	for {
		there, err := o.conn.LoadState(ctx, o.queue, key)
		if err != nil || there.Version >= s.Version {
			return false, err
		}
		if err := o.putsAgain(ctx); err != nil {
			return false, err
		}
		s.Seq = there.Seq
		pending, err := o.conn.PutState(o.queue, stream.StatePut{Key: key, StoredState: s})
		if err == nil {
			_, err = pending.Wait(ctx)
		}
		if !errors.Is(err, stream.ErrJobChanged) {
			return err == nil, err
		}
		if err := stream.Pause(ctx); err != nil { // a replica lags, or the former owner has put it just now
			return false, err
		}
	}
}
