package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/weir-dev/weir/api/v1alpha1"
	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/stream"
	"github.com/weir-dev/weir/internal/telemetry"
)

func newQueue() *cobra.Command {
	var nats natsFlags
	cmd := &cobra.Command{
		Use:   "queue",
		Short: "Look at queues",
		Long:  "Look at queues. weir dlq --help says how to reach the chart's NATS; for a local run: source .weir/env.",
	}
	nats.add(cmd.PersistentFlags())
	cmd.AddCommand(listQueues(&nats))
	return cmd
}

// listed is a queue as it is printed in JSON. The numbers are what weir.queue.* of the metrics and a Queue's status say.
type listed struct {
	Namespace   string      `json:"namespace"`
	Name        string      `json:"name"`
	Records     int64       `json:"records"` // waiting for their first attempt, or in it
	Uncertainty int64       `json:"uncertainty,omitempty"`
	Retrying    int64       `json:"retrying"`
	Dead        stream.Died `json:"dead"`
	Bytes       uint64      `json:"bytes"`
	OldestAge   string      `json:"oldestAge"`
	InFlight    *int        `json:"inFlight,omitempty"` // records in the dispatcher's hands; absent if it doesn't say
	Owned       bool        `json:"owned"`
	Unaccounted int64       `json:"unaccounted,omitempty"`
	State       string      `json:"state,omitempty"` // open, deleting or stray; absent while no catalog is published
}

// The states of a queue that has streams. They come from the catalog, which is in NATS in a cluster and in weir local alike: the
// command reaches nothing else.
const (
	stateOpen     = "open"
	stateDeleting = "deleting" // its Queue is being deleted: it takes no more records
	stateStray    = "stray"    // no Queue in use has it
)

const strayHint = `A queue whose STATE is stray is in NATS, but no Queue in use has it: its Queue was deleted without its finalizer, is another release's by
now, or is not in the folder of weir local any more. Nobody drains it, and what it holds is kept. weir dlq list shows its dead letters.
  To take it over: a Queue of its name (in a cluster of the class of this release), and a mapping that drains it.
  To remove it with all that it holds, in a cluster: such a Queue with the annotation ` + v1alpha1.DropRecordsAnnotation + `=true, which is then deleted.
`

func listQueues(nats *natsFlags) *cobra.Command {
	var flags listFlags
	cmd := &cobra.Command{
		Use: "list [QUEUE]", Short: "List what queues hold, in records", Args: cobra.MaximumNArgs(1),
		Long: `List what queues hold, in records: RECORDS wait for their first attempt or are in it, RETRYING wait for a later one,
DEAD are dead letters. OLDEST is the age of the oldest of RECORDS. IN-FLIGHT are those that the dispatcher has in its hands: in a
call, or waiting for one or for their batch; - is of a dispatcher that doesn't say. OWNER says whether a dispatcher works on the
queue. RECORDS with ± may be so far off, as after the end of a dispatcher that could not tidy up. STATE is open, deleting (its Queue is
being deleted) or stray: no Queue in use has it, and nobody drains it; how to take it over or to remove it is said beside the list.`,
		RunE: func(cmd *cobra.Command, names []string) error {
			if err := flags.check(); err != nil {
				return err
			}
			return nats.with(cmd, telemetry.Providers{}, func(c *stream.Conn) error {
				keys, err := c.QueueKeys(cmd.Context())
				if err != nil {
					return err
				}
				published, err := c.Catalog(cmd.Context()) // after the keys: a new queue has its streams a moment before it is published
				if err != nil {
					return err
				}
				var out []listed
				for _, k := range keys {
					if !flags.wants(k, names) {
						continue
					}
					d, err := c.Depth(cmd.Context(), k)
					if errors.Is(err, stream.ErrNoQueue) {
						continue // it has just been deleted
					}
					if err != nil {
						return err
					}
					q := newListed(k, d)
					q.State = queueState(k, published)
					out = append(out, q)
				}
				if len(out) == 0 {
					return flags.none("queue", names)
				}
				err = printRows(cmd.OutOrStdout(), flags.json, out, "NAMESPACE\tNAME\tRECORDS\tOLDEST\tIN-FLIGHT\tRETRYING\tDEAD\tBYTES\tOWNER\tSTATE", listed.row)
				if slices.ContainsFunc(out, func(q listed) bool { return q.State == stateStray }) {
					_, hintErr := io.WriteString(cmd.ErrOrStderr(), strayHint)
					err = errors.Join(err, hintErr)
				}
				return err
			})
		},
	}
	flags.add(cmd.Flags())
	return cmd
}

func newListed(k catalog.Key, d stream.Depth) listed {
	inFlight, _, _ := working(d.Work, d.Owned)
	return listed{
		Namespace: k.Namespace, Name: k.Name, Records: d.Waiting, Uncertainty: d.Uncertainty, Retrying: d.Retrying, Dead: d.Dead,
		Bytes: d.WaitingBytes + d.RetryingBytes + d.DeadBytes, OldestAge: d.Oldest.Truncate(time.Millisecond).String(),
		InFlight: inFlight, Owned: d.Owned, Unaccounted: d.Unaccounted,
	}
}

// queueState is what the published catalog says of a queue that has streams; empty if there is no catalog.
func queueState(k catalog.Key, p *stream.PublishedCatalog) string {
	i := slices.IndexFunc(p.Catalog.Queues, func(q catalog.Queue) bool { return q.Key == k })
	switch {
	case p.None():
		return ""
	case i < 0:
		return stateStray
	case p.Catalog.Queues[i].Closed:
		return stateDeleting
	}
	return stateOpen
}

func (q listed) row() string {
	records := fmt.Sprint(q.Records)
	if q.Uncertainty > 0 {
		records += fmt.Sprintf(" ±%d", q.Uncertainty)
	}
	return fmt.Sprintf("%s\t%s\t%s\t%s\t%s\t%d\t%d\t%d\t%s\t%s",
		q.Namespace, q.Name, records, q.OldestAge, number(q.InFlight), q.Retrying, q.Dead.Total(), q.Bytes, owner(q.Owned), cmp.Or(q.State, "-"))
}
