package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/stream"
)

const (
	machineConns    = 256 // that start executions at once
	machineExpress  = 64  // that run EXPRESS executions at once
	machineRate     = 20  // executions a second of five tasks, open loop
	machineStepRate = 100 // the same, for the time between two steps
	machineWarm     = 64  // executions before each measurement: all partitions have their owner, and its connections
	machineWait     = "wait=25"
	machineRoom     = 16 << 30 // bytes for executions
	temporalShare   = 40       // of Weir's executions in a round one of so many is Temporal's
)

// machineStage measures state machines: executions of five tasks whose functions answer at once, beside Temporal; their
// latency; EXPRESS ones; and very many that wait.
func (b *bench) machineStage(ctx context.Context) error {
	type part struct {
		name string
		run  func(context.Context) error
	}
	for _, p := range []part{
		{"machine_per_s", b.machineRounds},
		{"machine_latency", b.machineLatency},
		{"machine_express", b.machineExpresses},
		{"machine_waiting", b.machineWaiting},
	} {
		if b.variants != nil && !slices.Contains(b.variants, p.name) {
			continue
		}
		if err := p.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		b.stopChildren()
	}
	return nil
}

// machineRounds has Weir and Temporal take turns. Each round has its ratio.
func (b *bench) machineRounds(ctx context.Context) error {
	t, err := b.startTemporal(ctx)
	if err != nil {
		return fmt.Errorf("temporal: %w", err)
	}
	for round := range b.rounds {
		b.say("machine, round %d of %d", round+1, b.rounds)
		var ours, theirs float64
		turns := []turn{{"machine_per_s", func(ctx context.Context) (err error) {
			ours, err = b.machinesDone(ctx)
			return err
		}}}
		if t != nil {
			turns = append(turns, turn{"temporal_per_s", func(ctx context.Context) (err error) {
				theirs, err = t.done(ctx)
				return err
			}})
		}
		if round%2 == 1 {
			slices.Reverse(turns)
		}
		for _, turn := range turns {
			if err := turn.run(ctx); err != nil {
				return fmt.Errorf("%s: %w", turn.name, err)
			}
		}
		if t != nil {
			b.results.add("machine_vs_temporal", ours/theirs)
			fmt.Printf("    %-26s %7.1f\n", "machine_vs_temporal", ours/theirs)
		}
	}
	if t != nil {
		if err := t.latencies(ctx); err != nil {
			return fmt.Errorf("temporal: %w", err)
		}
	}
	return b.stopDatabase() //nolint:contextcheck // it must stop when ctx is over, too
}

// machineStack is NATS and one orchestrator, which owns all partitions.
type machineStack struct {
	b                  *bench
	nats, orchestrator *child
	dir, url, addr     string // NATS's data and URL; the orchestrator's API
}

func (b *bench) startMachines(ctx context.Context) (s *machineStack, err error) {
	s = &machineStack{b: b, dir: b.folder("nats")}
	if s.nats, s.url, err = b.startNATS(ctx, s.dir); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, b.exe, "machines", s.url, strconv.Itoa(machineRoom))
	cmd.Dir = b.root
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("provision: %w\n%s", err, out)
	}
	if s.addr, err = freeAddress(ctx); err != nil {
		return nil, err
	}
	if err := s.startOrchestrator(); err != nil {
		return nil, err
	}
	return s, s.warm(ctx)
}

// provisionMachines does what the controller does for state machines.
func provisionMachines(ctx context.Context, url string, room int64) error {
	conn, err := connect(ctx, url)
	if err != nil {
		return err
	}
	defer conn.Close()
	return errors.Join(conn.EnsureLeases(ctx, 1), conn.EnsureKeys(ctx, 1, time.Now()), conn.EnsureMachines(ctx, 1, room), conn.PublishCatalog(ctx, &catalog.Catalog{}, 1, nil))
}

// startOrchestrator starts it as a container is started again: at the same address, and by the same name.
func (s *machineStack) startOrchestrator() (err error) {
	s.orchestrator, err = s.b.start("orchestrator", filepath.Join(s.b.bin, "orchestrator"), nil, []string{
		"WEIR_NATS_URL=" + s.url, "WEIR_LISTEN=127.0.0.1:0", "WEIR_HEALTH_LISTEN=" + s.addr, "WEIR_INSTANCE=bench", "WEIR_LOG_LEVEL=warn",
	})
	return err
}

// warm runs executions until all partitions have an owner.
func (s *machineStack) warm(ctx context.Context) error {
	functions, err := s.tasks(ctx)
	if err != nil {
		return err
	}
	if err := s.put(ctx, "warm", "STANDARD", fiveTasks(functions)); err != nil {
		return err
	}
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: machineWarm}}
	defer client.CloseIdleConnections()
	errs := make([]error, machineWarm)
	var wg sync.WaitGroup
	for n := range errs {
		wg.Go(func() {
			errs[n] = s.orchestrator.untilIn(ctx, readyTimeout, func() bool { return s.execute(ctx, client, "warm") == nil })
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// tasks starts the functions, new ones for each measurement.
func (s *machineStack) tasks(ctx context.Context) (addr string, err error) {
	_, addr, err = s.b.self(ctx, "tasks", "tasks")
	return addr, err
}

// fiveTasks is a machine of five tasks, one after the other.
func fiveTasks(functions string) string {
	var states []string
	for n := 1; n <= 5; n++ {
		next := fmt.Sprintf(`"Next": "S%d"`, n+1)
		if n == 5 {
			next = `"End": true`
		}
		states = append(states, fmt.Sprintf(`"S%d": {"Type": "Task", "Resource": "http://%s/%d", %s}`, n, functions, n, next))
	}
	return `{"StartAt": "S1", "States": {` + strings.Join(states, ", ") + `}}`
}

// put puts a machine, once its partition has an owner.
func (s *machineStack) put(ctx context.Context, name, kind, definition string) error {
	body := fmt.Sprintf(`{"type": %q, "definition": %s}`, kind, definition)
	status, text := 0, ""
	err := s.orchestrator.until(ctx, func() bool {
		status, text = get(ctx, http.MethodPut, "http://"+s.addr+"/state-machines/"+name, "application/json", []byte(body))
		return status == http.StatusOK || status >= 400 && status < 500
	})
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("put machine %s: %d %s", name, status, text)
	}
	return err
}

// orders are starts of executions, for load.
func machineOrders(conns int, machine, prefer string) *orderBook {
	return sameBook(conns, executionsPath(machine), prefer, `{"input":{"n":7,"order":"`+stampMark+`"}}`)
}

func executionsPath(machine string) string { return "/state-machines/" + machine + "/executions" }

// execute starts an execution and waits for its end.
func (s *machineStack) execute(ctx context.Context, client *http.Client, machine string) error {
	status, _, text, err := do(ctx, client, http.MethodPost, "http://"+s.addr+executionsPath(machine), `{"input":{"n":7,"order":"`+stampMark+`"}}`, machineWait)
	if err := expect("execution", http.StatusOK, status, text, err); err != nil {
		return err
	}
	if !strings.Contains(text, `"status":"SUCCEEDED"`) {
		return fmt.Errorf("an execution has not succeeded: %s", text)
	}
	return nil
}

// untilSucceeded waits until no execution of a machine runs or is seen to run, and returns how many events one of them has.
func (s *machineStack) untilSucceeded(ctx context.Context, machine string) (events int, err error) {
	list := func(query string) (executions []struct{ ID, Status string }, err error) {
		_, text := get(ctx, http.MethodGet, "http://"+s.addr+executionsPath(machine)+"?limit=1"+query, "", nil)
		var answer struct {
			Executions []struct{ ID, Status string } `json:"executions"`
		}
		if err := json.Unmarshal([]byte(text), &answer); err != nil {
			return nil, fmt.Errorf("the executions of %s: %w: %s", machine, err, text)
		}
		return answer.Executions, nil
	}
	for deadline := time.Now().Add(readyTimeout); ; wait(ctx, 50*time.Millisecond) {
		running, err := list("&status=RUNNING")
		if err != nil {
			return 0, err
		}
		if len(running) == 0 {
			break
		}
		if time.Now().After(deadline) {
			return 0, fmt.Errorf("execution %s still runs", running[0].ID)
		}
	}
	for _, other := range []string{"FAILED", "TIMED_OUT", "ABORTED"} {
		if bad, err := list("&status=" + other); err != nil || len(bad) > 0 {
			return 0, errors.Join(err, fmt.Errorf("executions are %s: %v", other, bad))
		}
	}
	one, err := list("")
	if err != nil || len(one) == 0 {
		return 0, errors.Join(err, errors.New("there is no execution"))
	}
	_, text := get(ctx, http.MethodGet, "http://"+s.addr+"/executions/"+one[0].ID, "", nil)
	var d struct{ Events int }
	return d.Events, json.Unmarshal([]byte(text), &d)
}

// machinesDone measures the executions of five tasks a second: from the first start to the last call of a fifth function. Then
// all are seen to have succeeded, and what they take on the disk is looked up.
func (b *bench) machinesDone(ctx context.Context) (perSecond float64, err error) {
	defer b.stopChildren()
	s, err := b.startMachines(ctx)
	if err != nil {
		return 0, err
	}
	functions, err := s.tasks(ctx)
	if err != nil {
		return 0, err
	}
	if err := s.put(ctx, "five", "STANDARD", fiveTasks(functions)); err != nil {
		return 0, err
	}
	log, states, err := s.bytes(ctx)
	if err != nil {
		return 0, err
	}
	for name, c := range map[string]*child{"orchestrator": s.orchestrator, "nats": s.nats} {
		b.perf("machine-"+name, b.window, c.PID())
	}
	l := load{addr: s.addr, conns: machineConns, orders: machineOrders(machineConns, "five", ""), total: b.machineCount, want: http.StatusCreated}
	others, begin := b.watchOthers(), time.Now()
	cpu := map[string]time.Duration{"orchestrator": cpuTime(s.orchestrator.PID()), "nats": cpuTime(s.nats.PID())}
	res, err := l.run(ctx)
	if err != nil {
		return 0, err
	}
	seen, err := untilTasks(ctx, functions, res.stored)
	if err != nil {
		return 0, err
	}
	crowd := b.crowd(others())
	b.results.add("cpu_us_per_execution_orchestrator", float64((cpuTime(s.orchestrator.PID())-cpu["orchestrator"]).Microseconds())/float64(res.stored))
	b.results.add("cpu_us_per_execution_nats", float64((cpuTime(s.nats.PID())-cpu["nats"]).Microseconds())/float64(res.stored))
	perSecond = float64(res.stored) / time.Unix(0, seen.Last).Sub(begin).Seconds()
	b.results.add("machine_per_s", perSecond)
	fmt.Printf("    %-26s %7.0f/s  started at %.0f/s%s\n", "machine_per_s", perSecond, res.perSecond(), crowd)

	events, err := s.untilSucceeded(ctx, "five")
	if err != nil {
		return 0, err
	}
	logAfter, statesAfter, err := s.bytes(ctx)
	if err != nil {
		return 0, err
	}
	per := func(bytes uint64) float64 { return float64(bytes) / float64(res.stored) / float64(events) }
	b.results.add("machine_event_log_bytes", per(logAfter-log))
	b.results.add("machine_event_states_bytes", per(statesAfter-states))
	b.results.add("machine_event_bytes", per(logAfter-log+statesAfter-states))
	fmt.Printf("    %d events an execution, of each %.1f bytes in the log and %.1f among the states\n", events, per(logAfter-log), per(statesAfter-states))
	b.stopChildren()
	return perSecond, os.RemoveAll(s.dir)
}

// bytes are what the streams of the executions hold: the logs, of which blocks are removed after five minutes at the earliest,
// and the states.
func (s *machineStack) bytes(ctx context.Context) (log, states uint64, err error) {
	nc, err := nats.Connect(s.url)
	if err != nil {
		return 0, 0, err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return 0, 0, err
	}
	for n := range stream.MachinePartitions {
		k := stream.MachinePartition(n)
		for prefix, sum := range map[string]*uint64{"WEIR_L_": &log, "WEIR_S_": &states} {
			st, err := js.Stream(ctx, prefix+k.Namespace+"_"+k.Name)
			if err != nil {
				return 0, 0, err
			}
			*sum += st.CachedInfo().State.Bytes
		}
	}
	return log, states, nil
}

// machineLatency measures executions of five tasks at fixed times (open loop): how long one takes whose client waits for its
// end, and what is between two steps.
func (b *bench) machineLatency(ctx context.Context) error {
	s, err := b.startMachines(ctx)
	if err != nil {
		return err
	}
	measure := func(machine string, rate int, f func(client *http.Client) error) (took []time.Duration, seen tasksSeen, err error) {
		functions, err := s.tasks(ctx)
		if err != nil {
			return nil, seen, err
		}
		if err := s.put(ctx, machine, "STANDARD", fiveTasks(functions)); err != nil {
			return nil, seen, err
		}
		client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: machineConns}}
		defer client.CloseIdleConnections()
		others := b.watchOthers()
		if took, err = paced(ctx, rate, int(b.latency.Seconds())*rate, func() error { return f(client) }); err != nil {
			return nil, seen, err
		}
		if crowd := b.crowd(others()); crowd != "" {
			fmt.Println("  " + crowd)
		}
		seen, err = untilTasks(ctx, functions, len(took))
		return took, seen, err
	}
	took, _, err := measure("waited", machineRate, func(client *http.Client) error { return s.execute(ctx, client, "waited") })
	if err != nil {
		return err
	}
	p50, p99 := quantiles(took)
	b.results.add("machine_p50_ms", p50)
	b.results.add("machine_p99_ms", p99)
	fmt.Printf("    five tasks at %d/s: p50 %.1f ms  p99 %.1f ms\n", machineRate, p50, p99)

	starts, seen, err := measure("steps", machineStepRate, func(client *http.Client) error {
		status, _, text, err := do(ctx, client, http.MethodPost, "http://"+s.addr+executionsPath("steps"), `{"input":{}}`, "")
		return expect("start", http.StatusCreated, status, text, err)
	})
	if err != nil {
		return err
	}
	p50, p99 = quantiles(starts)
	b.results.add("machine_start_p50_ms", p50)
	b.results.add("machine_start_p99_ms", p99)
	b.results.add("machine_step_p50_ms", seen.P50)
	b.results.add("machine_step_p99_ms", seen.P99)
	fmt.Printf("    at %d/s between two steps: p50 %.2f ms  p99 %.2f ms;  a start: p50 %.1f ms  p99 %.1f ms\n", machineStepRate, seen.P50, seen.P99, p50, p99)
	return nil
}

// paced calls f at fixed times, and returns how long after each it returned.
func paced(ctx context.Context, rate, total int, f func() error) ([]time.Duration, error) {
	took, errs := make([]time.Duration, total), make([]error, total)
	start := time.Now().Add(100 * time.Millisecond)
	var wg sync.WaitGroup
	for n := range total {
		due := start.Add(time.Duration(n) * time.Second / time.Duration(rate))
		wait(ctx, time.Until(due))
		wg.Go(func() {
			errs[n] = f()
			took[n] = time.Since(due)
		})
	}
	wg.Wait()
	return took, errors.Join(errs...)
}

// quantiles are the median and the 99th percentile, in ms.
func quantiles(took []time.Duration) (p50, p99 float64) {
	slices.Sort(took)
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	return ms(took[len(took)/2]), ms(took[len(took)*99/100])
}

// expressMachine has five Pass and Choice states.
const expressMachine = `{"StartAt": "A", "States": {
	"A": {"Type": "Pass", "Parameters": {"n.$": "$.n", "m": 1}, "Next": "B"},
	"B": {"Type": "Choice", "Choices": [{"Variable": "$.n", "NumericGreaterThan": 5, "Next": "C"}], "Default": "C"},
	"C": {"Type": "Pass", "Result": {"a": 1}, "ResultPath": "$.c", "Next": "D"},
	"D": {"Type": "Choice", "Choices": [{"Variable": "$.m", "NumericEquals": 1, "Next": "E"}], "Default": "E"},
	"E": {"Type": "Pass", "End": true}}}`

// machineExpresses measures EXPRESS executions a second, each in its request.
func (b *bench) machineExpresses(ctx context.Context) error {
	s, err := b.startMachines(ctx)
	if err != nil {
		return err
	}
	if err := s.put(ctx, "express", "EXPRESS", expressMachine); err != nil {
		return err
	}
	if err := s.execute(ctx, http.DefaultClient, "express"); err != nil {
		return err
	}
	http.DefaultClient.CloseIdleConnections()
	for range b.rounds {
		l := load{
			addr: s.addr, conns: machineExpress, orders: machineOrders(machineExpress, "express", "Prefer: "+machineWait+"\r\n"),
			warm: warmUp, window: b.window, want: http.StatusOK,
		}
		var others func() float64
		var client, server time.Duration
		crowd := ""
		l.onWindow = func(begin bool) {
			if begin {
				others, client, server = b.watchOthers(), ownCPU(), cpuTime(s.orchestrator.PID())
				b.perf("machine-express", b.window, s.orchestrator.PID())
				return
			}
			crowd, client, server = b.crowd(others()), ownCPU()-client, cpuTime(s.orchestrator.PID())-server
		}
		res, err := l.run(ctx)
		if err != nil {
			return err
		}
		if res.accepted == 0 || len(res.statuses) > 1 {
			return fmt.Errorf("the answers were not all 200: %v", res.statuses)
		}
		b.results.add("machine_express_per_s", res.perSecond())
		b.results.add("cpu_us_per_express_client", float64(client.Microseconds())/float64(res.accepted))
		b.results.add("cpu_us_per_express_orchestrator", float64(server.Microseconds())/float64(res.accepted))
		fmt.Printf("    %-26s %7.0f/s  p50 %.1f ms  p99 %.1f ms%s\n", "machine_express_per_s", res.perSecond(), res.ms(50), res.ms(99), crowd)
	}
	return nil
}

// kill ends the orchestrator as a crash would.
func (s *machineStack) kill() {
	s.orchestrator.Signal(syscall.SIGKILL)
	<-s.orchestrator.Done()
	s.b.children = slices.DeleteFunc(s.b.children, func(c *child) bool { return c == s.orchestrator })
}
