package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
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
	Owned       bool        `json:"owned"`
	Unaccounted int64       `json:"unaccounted,omitempty"`
}

func listQueues(nats *natsFlags) *cobra.Command {
	var namespace string
	var asJSON bool
	cmd := &cobra.Command{
		Use: "list [QUEUE]", Short: "List what queues hold, in records", Args: cobra.MaximumNArgs(1),
		Long: `List what queues hold, in records: RECORDS wait for their first attempt or are in it, RETRYING wait for a later one,
DEAD are dead letters. OLDEST is the age of the oldest of RECORDS. OWNER says whether a dispatcher works on the queue.
RECORDS with ± may be so far off, as after the end of a dispatcher that could not tidy up.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return nats.with(cmd, telemetry.Providers{}, func(c *stream.Conn) error {
				keys, err := c.QueueKeys(cmd.Context())
				if err != nil {
					return err
				}
				var out []listed
				for _, k := range keys {
					if namespace != "" && k.Namespace != namespace || len(args) > 0 && k.Name != args[0] {
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
					return errors.New("there is no such queue")
				}
				return printQueues(cmd.OutOrStdout(), out, asJSON)
			})
		},
	}
	cmd.Flags().StringVarP(&namespace, "namespace", "n", "", "only queues of this namespace")
	cmd.Flags().BoolVar(&asJSON, "json", false, "one JSON object a line")
	return cmd
}

func newListed(k catalog.Key, d stream.Depth) listed {
	return listed{
		Namespace: k.Namespace, Name: k.Name, Records: d.Waiting, Uncertainty: d.Uncertainty, Retrying: d.Retrying, Dead: d.Dead,
		Bytes: d.WaitingBytes + d.RetryingBytes + d.DeadBytes, OldestAge: d.Oldest.Truncate(time.Millisecond).String(), Owned: d.Owned, Unaccounted: d.Unaccounted,
	}
}

func printQueues(w io.Writer, queues []listed, asJSON bool) error {
	if asJSON {
		enc := json.NewEncoder(w)
		for _, q := range queues {
			if err := enc.Encode(q); err != nil {
				return err
			}
		}
		return nil
	}
	tab := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, err := fmt.Fprintln(tab, "NAMESPACE\tNAME\tRECORDS\tRETRYING\tDEAD\tBYTES\tOLDEST\tOWNER")
	for _, q := range queues {
		records, owner := fmt.Sprint(q.Records), "yes"
		if q.Uncertainty > 0 {
			records += fmt.Sprintf(" ±%d", q.Uncertainty)
		}
		if !q.Owned {
			owner = "none"
		}
		_, lerr := fmt.Fprintf(tab, "%s\t%s\t%s\t%d\t%d\t%d\t%s\t%s\n", q.Namespace, q.Name, records, q.Retrying, q.Dead.Total(), q.Bytes, q.OldestAge, owner)
		if lerr != nil {
			err = lerr
		}
	}
	return errors.Join(err, tab.Flush())
}
