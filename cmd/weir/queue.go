package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

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
}

func listQueues(nats *natsFlags) *cobra.Command {
	var flags listFlags
	cmd := &cobra.Command{
		Use: "list [QUEUE]", Short: "List what queues hold, in records", Args: cobra.MaximumNArgs(1),
		Long: `List what queues hold, in records: RECORDS wait for their first attempt or are in it, RETRYING wait for a later one,
DEAD are dead letters. OLDEST is the age of the oldest of RECORDS. IN-FLIGHT are those that the dispatcher has in its hands: in a
call, or waiting for one or for their batch; - is of a dispatcher that doesn't say. OWNER says whether a dispatcher works on the
queue. RECORDS with ± may be so far off, as after the end of a dispatcher that could not tidy up.`,
		RunE: func(cmd *cobra.Command, names []string) error {
			if err := flags.check(); err != nil {
				return err
			}
			return nats.with(cmd, telemetry.Providers{}, func(c *stream.Conn) error {
				keys, err := c.QueueKeys(cmd.Context())
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
					out = append(out, newListed(k, d))
				}
				if len(out) == 0 {
					return flags.none("queue", names)
				}
				return printRows(cmd.OutOrStdout(), flags.json, out, "NAMESPACE\tNAME\tRECORDS\tOLDEST\tIN-FLIGHT\tRETRYING\tDEAD\tBYTES\tOWNER", listed.row)
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

func (q listed) row() string {
	records := fmt.Sprint(q.Records)
	if q.Uncertainty > 0 {
		records += fmt.Sprintf(" ±%d", q.Uncertainty)
	}
	return fmt.Sprintf("%s\t%s\t%s\t%s\t%s\t%d\t%d\t%d\t%s",
		q.Namespace, q.Name, records, q.OldestAge, number(q.InFlight), q.Retrying, q.Dead.Total(), q.Bytes, owner(q.Owned))
}
