package orchestrator

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/jsontree"
	"github.com/weir-dev/weir/internal/ownpath"
	"github.com/weir-dev/weir/internal/statelang"
	"github.com/weir-dev/weir/internal/stream"
	"github.com/weir-dev/weir/internal/taskapi"
)

// Tasks of activities wait for a worker that takes them. What their partition's owner knows of them is an offer: the execution and
// how many it has, some bytes. It is made of the executions' summaries by a new owner. The execution comes into memory when one is
// taken: that is an event, which is durable before the worker gets the task. So of two workers one gets it, whatever crashes.

const (
	tasksPath = "/tasks/"
	// maxUntaken bounds the activities that a summary names. An execution that has tasks of more stays in memory.
	maxUntaken = 16
	// takeWithin is how long who asked for a task surely waits for it: what is taken later would be nobody's.
	takeWithin = 3 * time.Second
)

// serveTasks serves reports on tasks, and workers, as the gateway does.
func (o *Orchestrator) serveTasks(mux *http.ServeMux) {
	serve := func(pattern string, most int64, timeout time.Duration, f func(http.ResponseWriter, *http.Request, []byte)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			rc := http.NewResponseController(w)
			_ = rc.SetReadDeadline(time.Now().Add(apiTimeout)) // the server's own are those of probes
			_ = rc.SetWriteDeadline(time.Now().Add(timeout))
			body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, most))
			if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
				err = stream.ErrTooLargeForServer
			}
			if err != nil {
				refuse(w, err)
				return
			}
			_ = rc.SetReadDeadline(time.Time{}) // else it ends the wait, too
			f(w, r, body)
		})
	}
	for verb, kind := range map[string]taskapi.Kind{"success": taskapi.Succeeded, "failure": taskapi.Failed, "heartbeat": taskapi.Alive} {
		serve("POST "+tasksPath+"{token}/"+verb, taskapi.MaxReportBytes, apiTimeout, o.tasks.Report(kind))
	}
	serve("POST /activities/{name}/tasks", taskapi.MaxTakeBytes, taskapi.MaxTakeWait+apiTimeout, func(w http.ResponseWriter, r *http.Request, body []byte) {
		k, err := taskapi.ParseActivity(r.PathValue("name"), taskapi.DefaultNamespace)
		if err != nil {
			refuse(w, invalid(err))
			return
		}
		o.tasks.Take(w, r, k, body)
	})
}

// putActivity answers with the address at which workers take an activity's tasks. Nothing is stored: an activity is its name.
func (o *Orchestrator) putActivity(w http.ResponseWriter, r *http.Request) error {
	k, err := taskapi.ParseActivity(r.PathValue("name"), taskapi.DefaultNamespace)
	if err != nil {
		return invalid(err)
	}
	address := taskapi.Address(o.tasks.Ring(), o.cfg.Conn.Now(), k)
	if address == "" {
		return stream.ErrUnavailable // no keys have come yet
	}
	return write(w, http.StatusOK, map[string]any{
		"name": k.String(), "activityArn": taskapi.ActivityARN(k), "url": o.cfg.Base.Of(ownpath.Activities + address + "/tasks"),
	})
}

// activity reports whether the call is an activity's task.
func (c *call) activity() bool {
	return c.effect.Kind == statelang.CallTask && c.effect.Resource.Kind == statelang.Activity
}

// newCall returns a call that has not begun. The activity of AWS's ARN is one of the machine's namespace.
func (x *execution) newCall(e statelang.Effect) *call {
	c := &call{effect: e}
	if c.activity() {
		c.of, _ = taskapi.ParseActivity(e.Resource.Text, x.id.Machine.Namespace) // it was read with the definition
		x.stale = true
	}
	return c
}

// untaken are tasks that no worker has.
type untaken struct {
	tasks int
	since int64 // when the oldest was asked for, in Unix milliseconds
}

// untaken are the execution's tasks that no worker has, by activity; nil if there are none.
func (x *execution) untaken() (all map[catalog.Key]untaken) {
	for _, c := range x.calls {
		if !c.activity() || c.taken {
			continue
		}
		u, at := all[c.of], c.effect.At.UnixMilli()
		if u.tasks++; u.tasks == 1 || at < u.since {
			u.since = at
		}
		if all == nil {
			all = map[catalog.Key]untaken{}
		}
		all[c.of] = u
	}
	return all
}

// waits notes that tasks of an activity wait.
func (s *summary) waits(activity catalog.Key, since int64) {
	if s.Untaken == nil {
		s.Untaken = map[string]int64{}
	}
	s.Untaken[taskapi.Text(activity)] = since
}

// offer has workers find the tasks that none has, now that they are durable.
func (x *execution) offer() {
	if !x.stale {
		return
	}
	x.stale = false
	all, p := x.untaken(), x.p
	p.mu.Lock()
	more := p.offers.set(x.id.Key(), all)
	p.mu.Unlock()
	for activity, tasks := range more {
		p.hint(activity, tasks)
	}
}

// offerOf is offer of an execution that is not in memory; nobody is told yet.
func (p *partition) offerOf(execution string, s summary) {
	all := map[catalog.Key]untaken{}
	for text, since := range s.Untaken {
		if k, ok := taskapi.KeyOf(text); ok {
			all[k] = untaken{tasks: 1, since: since} // how many it has is known once it is in memory
		}
	}
	if len(all) == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running[execution] == nil { // else it knows better
		p.offers.set(execution, all)
	}
}

// hintAll tells those who wait of all tasks that a new owner has found.
func (p *partition) hintAll() {
	p.mu.Lock()
	waiting := map[catalog.Key]int{}
	for activity := range p.offers.queues {
		waiting[activity] = p.offers.count(activity)
	}
	p.mu.Unlock()
	for activity, tasks := range waiting {
		p.hint(activity, tasks)
	}
}

func (p *partition) hint(activity catalog.Key, tasks int) {
	if err := p.o.cfg.Conn.Hint(p.key, taskapi.Text(activity), []byte(strconv.Itoa(tasks))); err != nil {
		p.log.Debug("workers are not told of a task: they find it when they ask", "activity", activity.String(), "error", err)
	}
}

// taking is a worker that takes a task of an activity.
type taking struct {
	activity catalog.Key
	worker   string
	until    time.Time
	given    *statelang.Effect // nil if there is none
}

// oldest is the task that a worker takes; nil if there is none, or nobody waits for it any more.
func (x *execution) oldest(t *taking) (first *call) {
	if time.Now().After(t.until) {
		return nil
	}
	for _, c := range x.calls {
		if c.activity() && !c.taken && c.of == t.activity && (first == nil || cmp.Or(c.effect.At.Compare(first.effect.At), cmp.Compare(c.effect.Call, first.effect.Call)) < 0) {
			first = c
		}
	}
	return first
}

// take gives a worker the task of an activity that has waited the longest in this partition; an empty one if there is none.
func (p *partition) take(ctx context.Context, activity catalog.Key, worker string) (taskapi.Taken, error) {
	until := time.Now().Add(takeWithin)
	for time.Now().Before(until) {
		p.mu.Lock()
		claimed, ok := p.offers.claim(activity)
		p.mu.Unlock()
		if !ok {
			break
		}
		id, _ := taskapi.IDOf(claimed.execution)
		t := &taking{activity: activity, worker: worker, until: until}
		done := make(chan error, 1)
		err := p.tell(ctx, id, item{take: t, done: done})
		if err == nil {
			err = p.settled(ctx, done)
		} else if refused, isRefused := errors.AsType[*stream.RefusedError](err); isRefused && refused.Code == taskapi.CodeNoExecution {
			continue // it has ended long ago
		} else if errors.Is(err, errUnknown) {
			p.log.Error("an execution can't be read; its tasks are given to nobody", "execution", id.String(), "error", err)
			continue
		} else {
			p.unclaim(claimed)
		}
		if err != nil {
			return taskapi.Taken{}, err
		}
		if t.given == nil {
			continue // it was over meanwhile, or others were quicker
		}
		input, err := jsontree.Append(nil, t.given.Input)
		p.mu.Lock()
		more := p.offers.count(activity)
		p.mu.Unlock()
		return taskapi.Taken{Token: t.given.Token, Input: input, More: more}, err
	}
	return taskapi.Taken{}, nil
}

// unclaim offers again what could not be taken now.
func (p *partition) unclaim(f offer) {
	p.mu.Lock()
	p.offers.add(f, 1)
	p.mu.Unlock()
}

// report is what somebody with a task's token says of it.
func (p *partition) report(ctx context.Context, id ID, q taskapi.Question) error {
	e := statelang.Event{Call: q.Call}
	switch q.Kind {
	case taskapi.Succeeded:
		e.Kind = statelang.Succeeded
	case taskapi.Failed:
		e.Kind, e.Failure = statelang.Failed, q.Failure.AsFailure()
	case taskapi.Alive:
		e.Kind = statelang.Beat
	default:
		return &stream.RefusedError{Code: taskapi.CodeInvalid, Message: "the kind of report " + strconv.Quote(string(q.Kind)) + " is unknown"}
	}
	if q.Output != nil {
		v, err := jsontree.Parse(*q.Output)
		if err != nil {
			return &stream.RefusedError{Code: taskapi.CodeInvalid, Message: "the output is no JSON: " + err.Error()}
		}
		e.Output = v
	}
	if q.Call == continueCall {
		return &stream.RefusedError{Code: taskapi.CodeToken, Message: "this task token was never given"}
	}
	done := make(chan error, 1)
	if err := p.tell(ctx, id, item{event: e, began: q.Began, done: done}); err != nil {
		return err
	}
	return p.settled(ctx, done)
}

// settled is await to the end, also of an ownership that is handed over: who asked must learn that it was done, because to ask again
// is another question. It is as long as a write.
func (p *partition) settled(ctx context.Context, done <-chan error) error {
	return p.await(context.WithoutCancel(ctx), done)
}
