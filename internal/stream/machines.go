package stream

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/weir-dev/weir/internal/catalog"
)

// Executions of state machines are states in logs of their own, one for each partition:
//
//	WEIR_L_sm-_N  weir.l.sm-.N          blocks of changes of the executions in partition N (ledger.go)
//	WEIR_S_sm-_N  weir.s.sm-.N.KIND.ID  the last state of each (states.go). No namespace is named "sm-".
//	              weir.a.sm-.N.WHAT     what the partition's owner is asked for
//	              weir.h.sm-.N.WHAT     hints at what it has (hints.go)
//	              weir.a.sm-.batch.WHAT what the controller is asked for: Kubernetes Jobs (package clusterjob)
const (
	// MachinePartitions is how many logs the executions of state machines are spread over.
	MachinePartitions = 8
	// DefaultMachineBytes bounds what all of them keep of executions.
	DefaultMachineBytes = 1 << 30

	machineNamespace = "sm-"

	refusedTooLarge = "TooLarge" // taskapi.CodeTooLarge is the same
	headerRefused   = "Weir-Refused"
)

// Machines keeps executions of state machines: their partitions, and who is asked about one.
type Machines interface {
	Ledgers
	Asks
	EnsureMachines(ctx context.Context, replicas int, maxBytes int64) error
	ServeAsks(k catalog.Key, f func(ctx context.Context, what string, body []byte) ([]byte, error)) (stop func(), err error)
	ScanStates(ctx context.Context, k catalog.Key, keys string, f func(key string, s StoredState) error) error
}

// Asks are questions to the owners of partitions.
type Asks interface {
	Ask(ctx context.Context, k catalog.Key, what string, body []byte) ([]byte, error)
	Hints
}

// MachinePartition names partition n's log.
func MachinePartition(n int) catalog.Key {
	return catalog.Key{Namespace: machineNamespace, Name: strconv.Itoa(n)}
}

// ClusterJobs is asked about Kubernetes Jobs, in the place of a partition.
func ClusterJobs() catalog.Key { return catalog.Key{Namespace: machineNamespace, Name: "batch"} }

// RefusedError is what an owner answers that can't do what it is asked for.
type RefusedError struct {
	Code    string // for programs
	Message string // for people
}

func (e *RefusedError) Error() string { return e.Message }

// EnsureMachines creates or updates the streams of executions. maxBytes bounds what all partitions keep of them; NATS reserves as much
// again for their logs, or the error is ErrNoRoom.
func (c *Conn) EnsureMachines(ctx context.Context, replicas int, maxBytes int64) error {
	ctx, cancel := c.bound(ctx, MachinePartitions*apiTimeout)
	defer cancel()
	var streams []jetstream.StreamConfig
	for n := range MachinePartitions {
		k := MachinePartition(n)
		q := catalog.Queue{Key: k, Jobs: true, Results: catalog.Results{MaxBytes: maxBytes / MachinePartitions}} // no MaxAge: an execution may wait for a year
		streams = append(streams, c.ledgerConfigs(q, streamOf(k, replicas))...)
	}
	if err := c.ensureStreams(ctx, streams, func(*jetstream.StreamConfig) error { return nil }); err != nil {
		return fmt.Errorf("executions: %w", err)
	}
	for n := range MachinePartitions {
		k := MachinePartition(n)
		if err := c.ensureEpoch(ctx, k); err != nil {
			return err
		}
		if err := c.confirmNew(ctx, k); err != nil {
			return err
		}
	}
	return nil
}

// asksSubject has in it what is asked, which is one token: so NATS' permissions can narrow who may ask for what.
func asksSubject(k catalog.Key, what string) string {
	return "weir.a." + k.Namespace + "." + k.Name + "." + what
}

// ServeAsks calls f for what the owner of partition k is asked for, and answers with what it returns: ErrLeaseLost is no answer,
// a *RefusedError reaches who asked. It is otherwise as ServeChanges.
func (c *Conn) ServeAsks(k catalog.Key, f func(ctx context.Context, what string, body []byte) ([]byte, error)) (stop func(), err error) {
	return c.serve(asksSubject(k, "*"), func(ctx context.Context, m *nats.Msg) {
		answer := &nats.Msg{Subject: m.Reply, Header: nats.Header{}}
		body, err := f(ctx, m.Subject[strings.LastIndexByte(m.Subject, '.')+1:], m.Data)
		refused, isRefused := errors.AsType[*RefusedError](err)
		switch {
		case errors.Is(err, ErrLeaseLost):
			return
		case isRefused:
			answer.Header.Set(headerRefused, refused.Code)
			answer.Data = []byte(refused.Message)
		case err != nil:
			answer.Header.Set(headerFailed, saidLost)
			answer.Data = []byte(err.Error())
		default:
			answer.Data = body
		}
		err = c.nc.PublishMsg(answer)
		if errors.Is(err, nats.ErrMaxPayload) {
			answer.Header.Set(headerRefused, refusedTooLarge)
			answer.Data = []byte("the answer is larger than NATS takes")
			err = c.nc.PublishMsg(answer)
		}
		if err != nil {
			c.log.DebugContext(ctx, "the answer of a partition's owner was not sent", "error", err)
		}
	})
}

// Ask asks the owner of partition k. The error is a *RefusedError, or ErrUnavailable: then it is unknown whether it was done,
// and it may be asked again.
func (c *Conn) Ask(ctx context.Context, k catalog.Key, what string, body []byte) ([]byte, error) {
	ctx, cancel := c.bound(ctx, commitTimeout)
	defer cancel()
	answer, err := c.nc.RequestMsgWithContext(ctx, &nats.Msg{Subject: asksSubject(k, what), Data: body})
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		return nil, fmt.Errorf("%w: nobody answers for %s now", ErrUnavailable, k)
	case err != nil:
		return nil, publishError(ctx, err)
	case answer.Header.Get(headerRefused) != "":
		return nil, &RefusedError{answer.Header.Get(headerRefused), string(answer.Data)}
	case answer.Header.Get(headerFailed) != "":
		return nil, fmt.Errorf("%w: the partition's owner: %s", ErrUnavailable, answer.Data)
	}
	return answer.Data, nil
}

const (
	// maxScanning is how many states are asked for in one request of a scan, if they have no more than maxScanBytes: at each the
	// server counts what is left, subject by subject.
	maxScanning  = 32768
	maxScanBytes = 16 << 20
	// maxScans is how many of these requests are under way at a time, of all scans. What they are answered with must be less
	// than the server keeps for a connection (max_pending, 64 MiB), and is in memory here.
	maxScans = 2
)

// AllKeys is what all keys of a partition fit.
const AllKeys = ">"

// ScanStates calls f with the state of each key that fits keys, a subject's end in which tokens may be wildcards, in the order in
// which they were put. Those that are put meanwhile may be among them, also again.
func (c *Conn) ScanStates(ctx context.Context, k catalog.Key, keys string, f func(key string, s StoredState) error) error {
	prefix := stateSubject(k, "")
	of := prefix + keys
	if keys == AllKeys {
		of = "" // with a filter the server looks at a block's subjects for each state: five times as slow with all of them
	}
	from := uint64(1)
	for {
		request := struct {
			Seq   uint64 `json:"seq"`
			Batch int    `json:"batch"`
			Bytes int    `json:"max_bytes"`
			Of    string `json:"next_by_subj,omitempty"`
		}{from, maxScanning, maxScanBytes, of}
		select {
		case c.scans <- struct{}{}:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		found := 0
		_, err := c.several(ctx, statesStream(k), request, maxScanning, func(m *stored) error {
			found++
			from = m.seq + 1
			key := strings.TrimPrefix(m.header.Get(jetstream.SubjectHeader), prefix)
			if key == epochToken || key == statesToken {
				return nil
			}
			s, err := stateOf(m)
			if err != nil {
				return fmt.Errorf("state %s of %s: %w", key, k, err)
			}
			return f(key, s)
		})
		<-c.scans
		if errors.Is(err, errNoMessage) || err == nil && found == 0 {
			return nil
		}
		if err != nil {
			return fmt.Errorf("states of %s: %w", k, err)
		}
	}
}
