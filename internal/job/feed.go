package job

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/record"
	"github.com/weir-dev/weir/internal/sign"
	"github.com/weir-dev/weir/internal/stream"
)

// Feed is the secret with which a client submits jobs as its own, and follows all of them. Nothing of it is stored:
// whoever knows its text is the client.
type Feed struct{ secret [feedBytes]byte }

const (
	feedBytes   = 16
	purposeFeed = "feed"
)

// ErrNoFeed means that a text is no feed that was ever issued.
var ErrNoFeed = errors.New("job: no such feed")

// NewFeed returns one that nobody can guess.
func NewFeed() (f Feed) {
	_, _ = rand.Read(f.secret[:]) // never fails
	return f
}

// Text signs it, or returns ErrNoKeys. It is valid as long as the key of now is kept.
func (f Feed) Text(ring sign.Ring, now time.Time) (string, error) {
	text, ok := ring.Seal(now, purposeFeed, f.secret[:])
	if !ok {
		return "", ErrNoKeys
	}
	return text, nil
}

// ParseFeed reads what Text wrote, or returns ErrNoFeed.
func ParseFeed(text string, ring sign.Ring) (f Feed, err error) {
	s, ok := sign.Unseal(text, feedBytes, feedBytes)
	if !ok || !s.Verify(ring, purposeFeed) {
		return f, ErrNoFeed
	}
	copy(f.secret[:], s.Body)
	return f, nil
}

// Client is the owner of the jobs. It is part of their ids, and reveals nothing of the feed's text.
func (f Feed) Client() (c record.Client) {
	sum := sha256.Sum256(f.secret[:])
	copy(c[:], sum[:])
	return c
}

// Position is a cursor in the states of each queue.
type Position map[catalog.Key]stream.Place

// String encodes it as a short text.
func (p Position) String() string {
	var parts []string
	for k, at := range p {
		parts = append(parts, hex.EncodeToString(tag(k))+":"+at.Epoch+":"+strconv.FormatUint(at.Seq, 10))
	}
	slices.Sort(parts)
	return strings.Join(parts, ",")
}

// ParsePosition reads what String wrote. It leaves out parts that it can't read, of other queues or without an epoch: a
// queue that is left out begins at the beginning.
func ParsePosition(text string, queues []catalog.Key) Position {
	places := map[string]stream.Place{}
	for part := range strings.SplitSeq(text, ",") {
		name, place, _ := strings.Cut(part, ":")
		epoch, seq, _ := strings.Cut(place, ":")
		if n, err := strconv.ParseUint(seq, 10, 63); err == nil && epoch != "" {
			places[name] = stream.Place{Epoch: epoch, Seq: n}
		}
	}
	p := Position{}
	for _, k := range queues {
		if at, ok := places[hex.EncodeToString(tag(k))]; ok {
			p[k] = at
		}
	}
	return p
}

// FollowClient calls f with the current state of each of the client's jobs in the queues, from after on, and then with
// every later one, until ctx ends, f fails or NATS is away. Each comes with its place in its queue. A job has no state
// before its first attempt.
func FollowClient(ctx context.Context, conn stream.JobEvents, client record.Client, queues []catalog.Key, after Position, f func(ID, *State, stream.Place) error) error {
	return conn.FollowClient(ctx, client, queues, after, func(k catalog.Key, j stream.JobKey, s stream.JobState, at stream.Place) error {
		state, err := told(s)
		if err != nil {
			return nil //nolint:nilerr // it can't be read; the hub logs it
		}
		return f(ID{Queue: k, Record: j.ID, Client: j.Client, Created: state.Created}, state, at)
	})
}
