package stream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/record"
)

// Depth is what a queue holds, in records.
//
// The server counts them: it counts messages by subject, and the subject of a block says how many records it has. What it
// can't know, which records of these blocks are settled already, the queue's owner says (Tally). So it costs writers nothing,
// needs no counter that could be lost, and is there without an owner too. TestDepthIsExact guards it.
type Depth struct {
	Waiting     int64 // waiting for their first attempt, or in it
	Uncertainty int64 // how far Waiting may be off, to either side
	Retrying    int64 // waiting for a later attempt, or in it; extrapolated from the first blocks if there are many
	Dead        Died

	WaitingBytes, RetryingBytes, DeadBytes uint64

	Oldest      time.Duration // since the block of the oldest of Waiting was stored, by the server's clock
	Owned       bool          // a dispatcher works on the queue
	Work        *Work         // its owner's
	Unaccounted int64         // records that were accepted and are nowhere; at least, and always 0
	// Settled is how many of the queue's records the owner has settled, since Epoch began.
	Settled int64
	Epoch   string
}

// Died is how many records died, by their reason.
type Died map[Reason]int64

// Total is all of them.
func (d Died) Total() (n int64) {
	for _, died := range d {
		n += died
	}
	return n
}

// Depths is what queues hold.
type Depths interface {
	QueueKeys(ctx context.Context) ([]catalog.Key, error)
	Depth(ctx context.Context, k catalog.Key) (Depth, error)
}

const (
	// countedRetries and countedRetryBytes bound what is read of the retry stream; the rest is taken to be alike.
	// What is read of them costs NATS, every ten seconds and for each queue whose function fails.
	countedRetries    = 512
	countedRetryBytes = 256 << 10
	// tallyTries is how often the stream is read anew because its owner has purged it meanwhile.
	tallyTries = 3
	// tallyTimeout bounds the wait for the owner's answer; where there is none the server says so at once.
	tallyTimeout = time.Second
)

// Depth counts what queue k holds now. It returns ErrNoQueue if it has no stream.
func (c *Conn) Depth(ctx context.Context, k catalog.Key) (Depth, error) {
	ctx, cancel := c.bound(ctx, apiTimeout)
	defer cancel()
	var d Depth
	if err := c.waiting(ctx, k, &d); err != nil {
		return Depth{}, fmt.Errorf("queue %s: %w", k, err)
	}
	if err := c.retrying(ctx, k, &d); err != nil {
		return Depth{}, fmt.Errorf("queue %s: retries: %w", k, err)
	}
	if err := c.died(ctx, k, &d); err != nil {
		return Depth{}, fmt.Errorf("queue %s: dead letters: %w", k, err)
	}
	return d, nil
}

// QueueKeys are the queues that have streams.
func (c *Conn) QueueKeys(ctx context.Context) ([]catalog.Key, error) {
	ctx, cancel := c.bound(ctx, apiTimeout)
	defer cancel()
	var out []catalog.Key
	names := c.js.StreamNames(ctx, jetstream.WithStreamListSubject("weir.q.>"))
	for name := range names.Name() {
		parts := strings.Split(name, "_") // names of resources hold none
		if len(parts) == 4 && name == queueStream(catalog.Key{Namespace: parts[2], Name: parts[3]}) {
			out = append(out, catalog.Key{Namespace: parts[2], Name: parts[3]})
		}
	}
	if err := names.Err(); err != nil {
		return nil, fmt.Errorf("list queues: %w", c.apiError(ctx, err))
	}
	slices.SortFunc(out, func(a, b catalog.Key) int { return strings.Compare(a.String(), b.String()) })
	return out, nil
}

// streamInfo is the answer to STREAM.INFO, with the messages of each subject that matches filter. One request: the client's
// Stream and Info take two.
func (c *Conn) streamInfo(ctx context.Context, name, filter string) (*jetstream.StreamInfo, error) {
	request, err := json.Marshal(struct {
		Filter string `json:"subjects_filter,omitempty"`
	}{filter})
	if err != nil {
		return nil, err
	}
	var answer struct {
		Error *jetstream.APIError `json:"error"`
		jetstream.StreamInfo
	}
	if err := c.ask(ctx, "STREAM.INFO."+name, request, &answer); err != nil {
		return nil, err
	}
	if answer.Error != nil {
		if answer.Error.ErrorCode == jetstream.JSErrCodeStreamNotFound {
			return nil, ErrNoQueue
		}
		return nil, c.apiError(ctx, answer.Error)
	}
	return &answer.StreamInfo, nil
}

func (c *Conn) ask(ctx context.Context, api string, request []byte, answer any) error {
	m, err := c.nc.RequestWithContext(ctx, jetstream.DefaultAPIPrefix+api, request)
	if err != nil {
		return c.apiError(ctx, err)
	}
	return json.Unmarshal(m.Data, answer)
}

// waiting counts the queue's own stream.
func (c *Conn) waiting(ctx context.Context, k catalog.Key, d *Depth) error {
	for try := 1; ; try++ {
		info, err := c.streamInfo(ctx, queueStream(k), countedSubject(k, 0)[:len(countedSubject(k, 0))-1]+"*")
		if err != nil {
			return err
		}
		records, vague, err := c.blocks(ctx, k, info)
		if err != nil {
			return err
		}
		d.WaitingBytes = info.State.Bytes
		d.Waiting, d.Uncertainty = records, vague
		tally, owned, err := c.tally(ctx, k)
		if err != nil {
			return err
		}
		d.Owned, d.Work = owned, tally.Work
		if !owned {
			return c.unowned(ctx, k, info, d)
		}
		d.Settled, d.Epoch = tally.Total, tally.Epoch
		if !tally.Exact { // what was settled before it took the queue is still being removed
			d.Uncertainty += records
		}
		if tally.Exact && info.State.Msgs > 0 && info.State.FirstSeq != tally.Purged+1 {
			if try < tallyTries {
				continue // a purge fell between the two answers, or between the server and the owner's books
			}
			d.Uncertainty += records
		}
		d.Waiting = max(0, d.Waiting-tally.Settled)
		d.Unaccounted = tally.Unaccounted + int64(info.State.NumDeleted)
		if tally.Exact && info.State.FirstSeq > tally.Last+1 {
			d.Unaccounted += int64(info.State.FirstSeq - tally.Last - 1) // the owner has seen none of them
		}
		if d.Waiting > 0 {
			d.Oldest = info.TimeStamp.Sub(info.State.FirstTime)
		}
		return nil
	}
}

// unowned corrects d for a queue that nobody works on: what is settled lies below its consumer's ack floor; all above it is
// delivered again.
func (c *Conn) unowned(ctx context.Context, k catalog.Key, info *jetstream.StreamInfo, d *Depth) error {
	d.Unaccounted = int64(info.State.NumDeleted)
	consumer, err := c.js.Consumer(ctx, queueStream(k), consumerName)
	if errors.Is(err, jetstream.ErrConsumerNotFound) || errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil
	}
	if err != nil {
		return c.apiError(ctx, err)
	}
	floor := consumer.CachedInfo().AckFloor.Stream
	switch {
	case info.State.Msgs == 0:
	case floor >= info.State.LastSeq:
		d.Waiting, d.Uncertainty = 0, 0
	case floor >= info.State.FirstSeq:
		settled := int64(floor - info.State.FirstSeq + 1) // blocks
		d.Uncertainty += min(d.Waiting, settled*record.MaxBlockRecords)
		d.Oldest = info.TimeStamp.Sub(info.State.FirstTime)
	default:
		d.Oldest = info.TimeStamp.Sub(info.State.FirstTime)
	}
	return nil
}

// blocks are the records of the blocks in the queue's stream, and how far that may be off.
func (c *Conn) blocks(ctx context.Context, k catalog.Key, info *jetstream.StreamInfo) (records, vague int64, err error) {
	var counted uint64
	for subject, messages := range info.State.Subjects {
		records += int64(recordsOf(subject)) * int64(messages)
		counted += messages
	}
	rest := int64(info.State.Msgs - min(counted, info.State.Msgs))
	if rest == 0 {
		return records, 0, nil
	}
	// Records stored one by one (AppendOnce), and blocks of the version before.
	former, err := c.streamInfo(ctx, queueStream(k), queueSubject(k))
	if err != nil {
		return 0, 0, err
	}
	vague = int64(former.State.Subjects[queueSubject(k)]) * (record.MaxBlockRecords - 1)
	return records + rest, vague, nil
}

// recordsOf is how many records a block holds by its subject, weir.q.ns.name.n.N or weir.d.ns.name.WHY.N; one if that
// doesn't say.
func recordsOf(subject string) int {
	parts := strings.Split(subject, ".")
	if len(parts) != 6 {
		return 1
	}
	n, err := strconv.Atoi(parts[5])
	if err != nil || n < 1 {
		return 1
	}
	return n
}

// retrying counts the retry stream by the headers of its messages.
func (c *Conn) retrying(ctx context.Context, k catalog.Key, d *Depth) error {
	info, err := c.streamInfo(ctx, retryStream(k), "")
	if errors.Is(err, ErrNoQueue) {
		return nil // it is being made or deleted
	}
	if err != nil {
		return err
	}
	d.RetryingBytes = info.State.Bytes
	if info.State.Msgs == 0 {
		return nil
	}
	// Not by a consumer that gets headers only: a work queue takes no second one. They say nothing of their number in their
	// subjects either, which are as many as they.
	blocks, err := c.batch(ctx, retryStream(k), 1, countedRetries, countedRetryBytes)
	if err != nil {
		return err
	}
	for _, m := range blocks {
		d.Retrying += int64(record.Count(m.data))
	}
	if all, read := int64(info.State.Msgs), int64(len(blocks)); read > 0 && all > read {
		d.Retrying = d.Retrying * all / read
	}
	return nil
}

// died counts the dead letters.
func (c *Conn) died(ctx context.Context, k catalog.Key, d *Depth) error {
	info, err := c.streamInfo(ctx, deadStream(k), deadSubject(k)+".*.*")
	if errors.Is(err, ErrNoQueue) {
		return nil // it is being made or deleted
	}
	if err != nil {
		return err
	}
	d.DeadBytes, d.Dead = info.State.Bytes, Died{}
	var counted uint64
	for subject, messages := range info.State.Subjects {
		d.Dead[reasonOf(subject)] += int64(recordsOf(subject)) * int64(messages)
		counted += messages
	}
	if info.State.Msgs > counted {
		d.Dead[Unknown] += int64(info.State.Msgs - counted) // at least
	}
	return nil
}
