package orchestrator

import (
	"context"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/weir-dev/weir/internal/statelang"
	"github.com/weir-dev/weir/internal/taskapi"
)

// A synchronous EXPRESS execution lives in the request that started it: nothing of it is stored.

// express is one of them.
type express struct {
	o     *Orchestrator
	id    ID
	run   *statelang.Run
	heard chan statelang.Event
	calls map[uint32]context.CancelFunc
	wakes map[uint32]time.Time
	again bool
	wg    sync.WaitGroup
}

// maxExpressHeard bounds the answers of calls that wait for their turn; more calls wait with them.
const maxExpressHeard = 64

// runExpress runs an execution to its end, or to ctx's: then it returns why that ended.
func (o *Orchestrator) runExpress(ctx context.Context, id ID, m *machine, input any) (*statelang.Run, error) {
	x := &express{o: o, id: id, heard: make(chan statelang.Event, maxExpressHeard), calls: map[uint32]context.CancelFunc{}, wakes: map[uint32]time.Time{}}
	defer x.wg.Wait()
	ctx, cancel := context.WithCancel(work{began: time.Now().UnixNano()}.in(ctx))
	defer cancel()
	var effects []statelang.Effect
	x.run, effects = statelang.New(m.parsed, statelang.Start{
		ID: id.ARN(), Name: id.Name, MachineID: taskapi.MachineARN(id.Machine), MachineName: id.Machine.Name, Input: input, At: o.cfg.Conn.Now().UTC().Truncate(time.Millisecond),
	})
	for {
		x.do(ctx, effects)
		if x.run.Status() != statelang.StatusRunning {
			return x.run, nil
		}
		e, err := x.next(ctx)
		if err != nil {
			return nil, err
		}
		e.At = o.cfg.Conn.Now().UTC().Truncate(time.Millisecond)
		effects = x.run.Apply(e)
	}
}

func (x *express) do(ctx context.Context, effects []statelang.Effect) {
	for _, e := range effects {
		switch e.Kind {
		case statelang.WakeAt:
			x.wakes[e.Call] = e.At
		case statelang.Cancel:
			delete(x.wakes, e.Call)
			if cancel := x.calls[e.Call]; cancel != nil {
				cancel()
				delete(x.calls, e.Call)
			}
		case statelang.Continue:
			x.again = true
		default:
			x.begin(ctx, e)
		}
	}
}

// begin makes a call.
func (x *express) begin(ctx context.Context, e statelang.Effect) {
	ctx, cancel := context.WithCancel(ctx)
	x.calls[e.Call] = cancel
	x.wg.Go(func() {
		defer cancel()
		for event := range x.o.watched(ctx, x.id, e, false) {
			event.Call = e.Call
			select {
			case x.heard <- event:
			case <-ctx.Done():
				return
			}
		}
	})
}

// next waits for the next event.
func (x *express) next(ctx context.Context) (statelang.Event, error) {
	if err := ctx.Err(); err != nil {
		return statelang.Event{}, context.Cause(ctx)
	}
	if x.again {
		x.again = false
		return statelang.Event{Kind: statelang.Continued}, nil
	}
	first, call := time.Time{}, uint32(0)
	for n, at := range x.wakes {
		if first.IsZero() || at.Before(first) || at.Equal(first) && n < call {
			first, call = at, n
		}
	}
	clock := time.NewTimer(first.Sub(x.o.cfg.Conn.Now())) // there is always one: the execution's own end
	defer clock.Stop()
	select {
	case e := <-x.heard:
		if cancel := x.calls[e.Call]; cancel != nil && e.Kind != statelang.Submitted {
			cancel()
			delete(x.calls, e.Call)
		}
		return e, nil
	case <-clock.C:
		delete(x.wakes, call)
		return statelang.Event{Kind: statelang.Woke, Call: call}, nil
	case <-ctx.Done():
		return statelang.Event{}, context.Cause(ctx)
	}
}

// newName is the name of an execution that is given none.
func newName() (string, error) {
	id, err := uuid.NewV7()
	return id.String(), err
}
