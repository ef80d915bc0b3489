package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/stream"
	"github.com/weir-dev/weir/internal/telemetry"
)

func newMapping() *cobra.Command {
	var nats natsFlags
	cmd := &cobra.Command{
		Use:   "mapping",
		Short: "Look at event source mappings",
		Long:  "Look at event source mappings. weir dlq --help says how to reach the chart's NATS; for a local run: source .weir/env.",
	}
	nats.add(cmd.PersistentFlags())
	cmd.AddCommand(listMappings(&nats))
	return cmd
}

// listedMapping is a mapping as it is printed in JSON. The numbers are what weir.mapping.* of the metrics say.
type listedMapping struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	Queue     string `json:"queue"`
	Function  string `json:"function"` // of a function by its url, the url's host; of a state machine statemachine/NAME
	Cap       int    `json:"cap"`
	Calls     *int   `json:"calls,omitempty"` // in flight; absent if its dispatcher doesn't say
	Limit     *int   `json:"limit,omitempty"` // how many there may be now; absent without a dispatcher too
	Owned     bool   `json:"owned"`
}

func listMappings(nats *natsFlags) *cobra.Command {
	var flags listFlags
	cmd := &cobra.Command{
		Use: "list [MAPPING]", Short: "List the calls of mappings, against their caps", Args: cobra.MaximumNArgs(1),
		Long: `List the calls of mappings, against their caps: CALLS are in flight now, and there are never more than CAP, maxConcurrency
or what it follows from. LIMIT is how many there may be now: it is lower for a while when the function has said "not now". - is of a
dispatcher that doesn't say. OWNER says whether a dispatcher works for the mapping.`,
		RunE: func(cmd *cobra.Command, names []string) error {
			if err := flags.check(); err != nil {
				return err
			}
			return nats.with(cmd, telemetry.Providers{}, func(c *stream.Conn) error {
				published, err := c.Catalog(cmd.Context())
				if err != nil {
					return err
				}
				var out []listedMapping
				for i := range published.Catalog.Mappings {
					m := &published.Catalog.Mappings[i]
					if !flags.wants(m.Key, names) {
						continue
					}
					work, owned, err := c.Work(cmd.Context(), m.Queue)
					if err != nil {
						return err
					}
					out = append(out, newListedMapping(m, work, owned))
				}
				if len(out) == 0 {
					return flags.none("mapping", names)
				}
				return printRows(cmd.OutOrStdout(), flags.json, out, "NAMESPACE\tNAME\tQUEUE\tFUNCTION\tCALLS\tCAP\tLIMIT\tOWNER", listedMapping.row)
			})
		},
	}
	flags.add(cmd.Flags())
	return cmd
}

func newListedMapping(m *catalog.Mapping, work *stream.Work, owned bool) listedMapping {
	function := m.Function.Name
	if m.Machine != nil {
		function = "statemachine/" + m.Machine.Name
	}
	_, calls, limit := working(work, owned)
	return listedMapping{
		Namespace: m.Namespace, Name: m.Name, Queue: m.Queue.Name, Function: function,
		Cap: m.MaxConcurrency, Calls: calls, Limit: limit, Owned: owned,
	}
}

func (m listedMapping) row() string {
	return fmt.Sprintf("%s\t%s\t%s\t%s\t%s\t%d\t%s\t%s",
		m.Namespace, m.Name, m.Queue, m.Function, number(m.Calls), m.Cap, number(m.Limit), owner(m.Owned))
}
