package ledger

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/weir-dev/weir/internal/stream"
)

const (
	// maxTakeOver bounds how often the log may move while this process tries to become the owner: who has the lease is alone.
	maxTakeOver = 5
	// maxReplay bounds the bytes of states that are made of the log at a time.
	maxReplay = 8 << 20
	// maxLooking bounds the states that are looked up at a time.
	maxLooking = 64
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
		if err != nil {
			return 0, err
		}
		o.last, o.number = seq, 1
		o.floor = shown
		restored, err := o.replay(ctx, from, end.Last)
		if err != nil {
			return 0, err
		}
		if whole {
			return shown, nil
		}
		if restored > 0 {
			o.log.WarnContext(ctx, "NATS was started anew; states that it had lost were restored", "states", restored)
		}
		return shown, o.conn.ConfirmStates(ctx, o.queue, restored > 0)
	}
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
			latest[e.key] = stream.StoredState{Header: e.Header, Body: e.Body, Version: l.Seq}
		}
		if size < maxReplay {
			return nil
		}
		return flush()
	})
	return made, errors.Join(err, flush())
}

// restore puts states, unless later ones are there.
func (o *Owner) restore(ctx context.Context, latest map[string]stream.StoredState) (int, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	var mu sync.Mutex
	made, slots := 0, make(chan struct{}, maxLooking)
	for key, s := range latest {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			break
		}
		wg.Go(func() {
			defer func() { <-slots }()
			put, err := o.restoreOne(ctx, key, s)
			if err != nil {
				cancel(err)
			}
			if put {
				mu.Lock()
				defer mu.Unlock()
				made++
			}
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return made, context.Cause(ctx)
	}
	return made, nil
}

func (o *Owner) restoreOne(ctx context.Context, key string, s stream.StoredState) (put bool, err error) {
	for {
		there, err := o.conn.LoadState(ctx, o.queue, key)
		if err != nil || there.Version >= s.Version {
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
