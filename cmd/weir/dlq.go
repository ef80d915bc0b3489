package main

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/record"
	"github.com/weir-dev/weir/internal/stream"
	"github.com/weir-dev/weir/internal/telemetry"
)

type dlq struct {
	nats      natsFlags
	namespace string
	telemetry telemetry.Providers // of a command that has any
}

func newDLQ() *cobra.Command {
	d := &dlq{}
	cmd := &cobra.Command{
		Use:   "dlq",
		Short: "Look into dead-letter queues, and bring dead letters back",
		Long: `Look into dead-letter queues, and bring dead letters back.

For a local run: source .weir/env. For the chart, reach NATS by a port-forward, as its user operator:

  kubectl -n weir-system port-forward svc/weir-nats 4222:4222 &
  (umask 077; kubectl -n weir-system get secret weir-nats-auth \
    -o jsonpath='{.data.operator-password}' | base64 -d > operator-password)
  kubectl -n weir-system get secret weir-nats-tls -o jsonpath='{.data.ca\.crt}' | base64 -d > ca.crt
  weir dlq list orders --nats tls://localhost:4222 --nats-user operator \
    --nats-password-file operator-password --nats-ca ca.crt

The chart's certificate holds for localhost too. One of your own that doesn't: give --nats a name that it holds
for, such as weir-nats.weir-system.svc, and point that name to 127.0.0.1 in /etc/hosts.`,
	}
	p := cmd.PersistentFlags()
	d.nats.add(p)
	p.StringVarP(&d.namespace, "namespace", "n", "default", "namespace of the queue")
	cmd.AddCommand(d.list(), d.show(), d.redrive(), d.purge())
	return cmd
}

// with runs f for the queue.
func (d *dlq) with(cmd *cobra.Command, queue string, f func(c *stream.Conn, k catalog.Key) error) error {
	err := d.nats.with(cmd, d.telemetry, func(c *stream.Conn) error { return f(c, catalog.Key{Namespace: d.namespace, Name: queue}) })
	if errors.Is(err, stream.ErrNoQueue) {
		return fmt.Errorf("there is no queue %s in namespace %s", queue, d.namespace)
	}
	return err
}

// cursor is a position in a dead-letter queue: a block and the number of a record in it, from 1. The zero value is the
// beginning.
type cursor struct {
	seq uint64
	n   int
}

// String writes what Set reads.
func (c *cursor) String() string {
	if *c == (cursor{}) {
		return ""
	}
	return fmt.Sprintf("%d.%d", c.seq, c.n)
}

// Set implements pflag.Value.
func (c *cursor) Set(text string) error {
	seq, n, _ := strings.Cut(text, ".")
	var err, nerr error
	c.seq, err = strconv.ParseUint(seq, 10, 64)
	c.n, nerr = strconv.Atoi(n)
	if err != nil || nerr != nil || c.n < 1 {
		return errors.New("must be a cursor that list has printed, such as 17.1")
	}
	return nil
}

// Type implements pflag.Value.
func (c *cursor) Type() string { return "CURSOR" }

// before reports whether c is an earlier position than o.
func (c *cursor) before(o cursor) bool {
	return cmp.Or(cmp.Compare(c.seq, o.seq), cmp.Compare(c.n, o.n)) < 0
}

// found is a dead letter and its position: a record, or a message that can't be read.
type found struct {
	at     cursor
	block  *stream.DeadBlock
	record *record.Record // nil if the block can't be read
	more   bool           // there are later ones
}

// walk yields the dead letters from a cursor on. most bounds the blocks that it reads at a time.
func walk(ctx context.Context, c stream.DeadLetterQueues, k catalog.Key, from cursor, most int) iter.Seq2[found, error] {
	return func(yield func(found, error) bool) {
		for b, err := range c.DeadLettersFrom(ctx, k, from.seq, most) {
			if err != nil {
				yield(found{}, err)
				return
			}
			letters := make([]found, 0, max(1, len(b.Records)))
			if b.Err != nil {
				letters = append(letters, found{at: cursor{b.Seq, 1}, block: &b})
			}
			for i := range b.Records {
				letters = append(letters, found{at: cursor{b.Seq, i + 1}, block: &b, record: &b.Records[i]})
			}
			for i, l := range letters {
				l.more = b.More || i < len(letters)-1
				if !l.at.before(from) && !yield(l, nil) {
					return
				}
			}
		}
	}
}

func (d *dlq) list() *cobra.Command {
	var limit int
	var asJSON bool
	var after cursor
	cmd := &cobra.Command{
		Use: "list QUEUE", Short: "List dead letters, oldest first", Args: cobra.ExactArgs(1),
		Long: `List dead letters, oldest first.

It reads no further than --limit. When there are more it says so, and how to go on: --after with the cursor of the last
one, which each line of --json has too.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if limit < 1 {
				return errors.New("--limit must be at least 1")
			}
			return d.with(cmd, args[0], func(c *stream.Conn, k catalog.Key) error {
				p := newPrinter(cmd.OutOrStdout(), asJSON)
				from := after
				if from != (cursor{}) {
					from.n++
				}
				n, last := 0, found{}
				for l, err := range walk(cmd.Context(), c, k, from, limit) {
					if err != nil {
						return errors.Join(err, p.flush())
					}
					p.row(&l)
					if n, last = n+1, l; n == limit {
						break
					}
				}
				if err := p.flush(); err != nil {
					return err
				}
				switch {
				case last.more:
					cmd.PrintErrf("there are more: --after %s\n", &last.at)
				case n == 0 && after == (cursor{}):
					cmd.PrintErrln("no dead letters")
				case n == 0:
					cmd.PrintErrln("no more dead letters")
				}
				return nil
			})
		},
	}
	cmd.Flags().IntVar(&limit, "limit", 50, "how many to print")
	cmd.Flags().Var(&after, "after", "only those after this one")
	cmd.Flags().BoolVar(&asJSON, "json", false, "one JSON object a line")
	return cmd
}

// letter is a dead letter as it is printed in JSON.
type letter struct {
	Cursor      string          `json:"cursor,omitempty"`
	ID          string          `json:"id"`
	Accepted    time.Time       `json:"accepted"`
	Died        time.Time       `json:"died"`
	Source      string          `json:"source"`
	Attempts    int             `json:"attempts"`
	Status      int             `json:"status"` // the function's last; 0 means no answer
	Reason      string          `json:"reason"`
	ContentType string          `json:"contentType,omitempty"`
	Bytes       int             `json:"bytes"`
	Body        json.RawMessage `json:"body,omitempty"`       // JSON bodies, with show
	BodyText    string          `json:"bodyText,omitempty"`   // other text
	BodyBase64  string          `json:"bodyBase64,omitempty"` // anything else
}

func newLetter(r *record.Record) letter {
	l := letter{
		ID: r.ID.String(), Accepted: r.Time, Source: r.Source, Attempts: r.Attempts,
		ContentType: r.ContentType, Bytes: len(r.Body),
	}
	if f := r.Failure; f != nil {
		l.Died, l.Status, l.Reason = f.Time, f.Status, f.Reason
	}
	return l
}

type printer struct {
	json *json.Encoder
	tab  *tabwriter.Writer
	err  error
}

func newPrinter(w io.Writer, asJSON bool) *printer {
	if asJSON {
		return &printer{json: json.NewEncoder(w)}
	}
	p := &printer{tab: tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)}
	p.print("ID\tDIED\tATTEMPTS\tSTATUS\tBYTES\tREASON")
	return p
}

func (p *printer) print(line string) {
	if _, err := fmt.Fprintln(p.tab, line); err != nil && p.err == nil {
		p.err = err
	}
}

func (p *printer) row(f *found) {
	if f.record == nil {
		p.unreadable(f)
		return
	}
	l := newLetter(f.record)
	l.Cursor = f.at.String()
	if p.json != nil {
		p.err = errors.Join(p.err, p.json.Encode(l))
		return
	}
	// The reason is the function's text: it must not send control sequences to the terminal.
	reason := []rune(strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, strings.Join(strings.Fields(l.Reason), " ")))
	if len(reason) > 100 {
		reason = append(reason[:99], '…')
	}
	p.print(fmt.Sprintf("%s\t%s\t%d\t%d\t%d\t%s", l.ID, l.Died.Local().Format(time.DateTime), l.Attempts, l.Status, l.Bytes, string(reason)))
}

// unreadable prints a message that is no block of records. It can be purged, but not redriven.
func (p *printer) unreadable(f *found) {
	b := f.block
	if p.json != nil {
		p.err = errors.Join(p.err, p.json.Encode(struct {
			Cursor   string    `json:"cursor"`
			Sequence uint64    `json:"sequence"`
			Died     time.Time `json:"died"`
			Error    string    `json:"error"`
		}{f.at.String(), b.Seq, b.Time, b.Err.Error()}))
		return
	}
	p.print(fmt.Sprintf("(message %d)\t%s\t-\t-\t-\tcan't be read: %v", b.Seq, b.Time.Local().Format(time.DateTime), b.Err))
}

func (p *printer) flush() error {
	if p.tab != nil {
		p.err = errors.Join(p.err, p.tab.Flush())
	}
	return p.err
}

// progressEvery is how often show reports how far its search is.
const progressEvery = 5 * time.Second

func (d *dlq) show() *cobra.Command {
	var from cursor
	cmd := &cobra.Command{
		Use: "show QUEUE ID", Short: "Print one dead letter whole, as JSON", Args: cobra.ExactArgs(2),
		Long: `Print one dead letter whole, as JSON.

It searches the dead-letter queue, oldest first, and says how far it has come if that takes long. --from with the cursor
that list --json has printed begins at that one.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := record.ParseID(args[1])
			if err != nil {
				return fmt.Errorf("%q is no record id: %w", args[1], err)
			}
			return d.with(cmd, args[0], func(c *stream.Conn, k catalog.Key) error {
				n, said := 0, time.Now()
				for l, err := range walk(cmd.Context(), c, k, from, showBatch) {
					if err != nil {
						return err
					}
					if l.record != nil && l.record.ID == id {
						return printWhole(cmd.OutOrStdout(), l.record)
					}
					if n++; time.Since(said) >= progressEvery {
						said = time.Now()
						cmd.PrintErrf("not among the first %d dead letters; searching on from %s\n", n, &l.at)
					}
				}
				return fmt.Errorf("no dead letter %s in queue %s", id, k.Name)
			})
		},
	}
	cmd.Flags().Var(&from, "from", "begin the search at this one")
	return cmd
}

// showBatch is how many blocks show reads at a time, unless they are large.
const showBatch = 64

func printWhole(w io.Writer, r *record.Record) error {
	l := newLetter(r)
	switch {
	case json.Valid(r.Body):
		l.Body = r.Body
	case utf8.Valid(r.Body):
		l.BodyText = string(r.Body)
	default:
		l.BodyBase64 = base64.StdEncoding.EncodeToString(r.Body)
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(l)
}

func (d *dlq) redrive() *cobra.Command {
	var rate int
	cmd := &cobra.Command{
		Use: "redrive QUEUE", Short: "Move dead letters back into their queue, oldest first",
		Long: `Move the dead letters that are there now back into their queue, oldest first.

One redrive of a queue runs at a time. One that was interrupted is resumed by running it again.

With OpenTelemetry's environment (OTEL_EXPORTER_OTLP_ENDPOINT), each dead letter whose trace is sampled gets a span there.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if rate < 0 {
				return errors.New("--rate must not be negative")
			}
			tel, err := setupTelemetry(cmd)
			if err != nil {
				return err
			}
			defer tel.Close() // after the connection: it exports the spans
			d.telemetry = tel.Providers
			return d.with(cmd, args[0], func(c *stream.Conn, k catalog.Key) error {
				moved := 0
				err := c.Redrive(cmd.Context(), k, rate, func(n int) { moved = n })
				cmd.PrintErrf("%d dead letters moved back to queue %s\n", moved, k.Name)
				if errors.Is(err, stream.ErrLeaseHeld) {
					return fmt.Errorf("another redrive of queue %s is running (one that was killed counts for %s more)", k.Name, stream.LeaseTTL)
				}
				return err
			})
		},
	}
	cmd.Flags().IntVar(&rate, "rate", 0, "records a second; 0: as fast as it goes")
	return cmd
}

// setupTelemetry starts telemetry, which exports if OpenTelemetry's environment says where to.
func setupTelemetry(cmd *cobra.Command) (*telemetry.Telemetry, error) {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return telemetry.Setup(cmd.Context(), telemetry.Config{
		Service: "weir-cli", Instance: host, Getenv: os.Getenv,
		Log: slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil)),
	})
}

func (d *dlq) purge() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: "purge QUEUE", Short: "Delete all dead letters of a queue, for ever", Args: cobra.ExactArgs(1),
		Long: `Delete all dead letters of a queue that are there now, for ever. What dies meanwhile stays.

It says how many messages those were, as NATS has counted them. A message holds the dead letters that were stored
together, one or more.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if !yes {
				return errors.New("this deletes records for ever: say --yes")
			}
			return d.with(cmd, args[0], func(c *stream.Conn, k catalog.Key) error {
				n, err := c.PurgeDead(cmd.Context(), k)
				if err != nil {
					return err
				}
				cmd.PrintErrf("all dead letters deleted that were there: %d messages, of one dead letter or more each\n", n)
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "really")
	return cmd
}
