package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"time"
)

const (
	wakeCount    = 10_000 // executions that are due at one moment, or as many as wait
	recoverCount = 64     // that are due while there is no orchestrator: as many put before those that wait, and after them
	// recoverAhead is how long after their start the former are due, and a second more for each recoverRate of those that wait,
	// for each wakeRate of those that are woken, and for the time in which nothing happens.
	recoverAhead = 8 * time.Second
	recoverRate  = 2500
	// beforeDue is how long before their moment executions that are due together are started, and a second more for each
	// wakeRate of them. When the first of them is due all must have been started.
	beforeDue = 2 * time.Second
	wakeRate  = 1000
	// For idleMost at most, a millisecond for each idlePer of them, nothing happens to those that wait until their memory is looked
	// at again. NATS drops what it has read and written two minutes later.
	idlePer  = 5
	idleMost = 150 * time.Second
	// killBefore is how long before executions are due the orchestrator is killed.
	killBefore = 200 * time.Millisecond
)

// machineWaiting measures what executions cost that wait: their starts, the memory and the disk of those that wait for a day;
// then how soon many that are due at one moment are woken, and one that is overdue when the orchestrator comes back.
func (b *bench) machineWaiting(ctx context.Context) error {
	s, err := b.startMachines(ctx)
	if err != nil {
		return err
	}
	if err := s.put(ctx, "day", "STANDARD", `{"StartAt": "W", "States": {"W": {"Type": "Wait", "Seconds": 86400, "End": true}}}`); err != nil {
		return err
	}
	wait(ctx, b.latency/4)
	empty, err := s.memory()
	if err != nil {
		return err
	}
	disk, err := folderBytes(s.dir)
	if err != nil {
		return err
	}
	idle := min(time.Duration(b.machineSleepers/idlePer)*time.Millisecond, idleMost)
	ahead := recoverAhead + idle + time.Duration(b.machineSleepers)*time.Second/recoverRate + time.Duration(min(wakeCount, b.machineSleepers))*time.Second/wakeRate
	early := time.Now().Add(ahead).Truncate(time.Second)
	overdue, err := s.startDue(ctx, "overdue-first", recoverCount, early)
	if err != nil {
		return err
	}
	b.perf("machine-starts-orchestrator", b.window, s.orchestrator.PID())
	b.perf("machine-starts-nats", b.window, s.nats.PID())
	l := load{addr: s.addr, conns: machineConns, orders: machineOrders(machineConns, "day", ""), total: b.machineSleepers, want: http.StatusCreated}
	others := b.watchOthers()
	res, err := l.run(ctx)
	if err != nil {
		return err
	}
	b.results.add("machine_waiting_executions", float64(res.stored))
	b.results.add("machine_starts_per_s", res.perSecond())
	fmt.Printf("    %-26s %7.0f/s  p50 %.1f ms  p99 %.1f ms%s\n", "machine_starts_per_s", res.perSecond(), res.ms(50), res.ms(99), b.crowd(others()))
	wait(ctx, b.latency/4)
	full, err := s.memory()
	if err != nil {
		return err
	}
	after, err := folderBytes(s.dir)
	if err != nil {
		return err
	}
	each := func(before, after float64) float64 { return (after - before) / float64(res.stored) }
	orchestrator, nats := each(empty.orchestrator, full.orchestrator), each(empty.nats, full.nats)
	b.results.add("machine_waiting_bytes", orchestrator+nats)
	b.results.add("machine_waiting_orchestrator_bytes", orchestrator)
	b.results.add("machine_waiting_nats_bytes", nats)
	b.results.add("machine_waiting_peak_bytes", each(empty.orchestrator+empty.nats, full.peak))
	b.results.add("machine_waiting_disk_bytes", each(float64(disk), float64(after)))
	fmt.Printf("    %d wait, each with %.0f bytes of memory (orchestrator %.0f, NATS %.0f; at most %.0f) and %.0f on the disk\n",
		res.stored, orchestrator+nats, orchestrator, nats, each(empty.orchestrator+empty.nats, full.peak), each(float64(disk), float64(after)))
	wait(ctx, idle)
	later, err := s.memory()
	if err != nil {
		return err
	}
	b.results.add("machine_waiting_later_bytes", each(empty.orchestrator+empty.nats, later.orchestrator+later.nats))
	fmt.Printf("    some time later each has %.0f bytes of memory (orchestrator %.0f, NATS %.0f)\n",
		each(empty.orchestrator+empty.nats, later.orchestrator+later.nats), each(empty.orchestrator, later.orchestrator), each(empty.nats, later.nats))
	if err := s.wakes(ctx); err != nil {
		return err
	}
	if err := s.recovers(ctx, overdue, early); err != nil {
		return err
	}
	if err := s.lists(ctx); err != nil {
		return err
	}
	b.stopChildren()
	return os.RemoveAll(s.dir)
}

// machineMemory is in bytes.
type machineMemory struct{ orchestrator, nats, peak float64 }

func (s *machineStack) memory() (m machineMemory, err error) {
	for _, one := range []struct {
		c    *child
		into *float64
	}{{s.orchestrator, &m.orchestrator}, {s.nats, &m.nats}} {
		mib, err := residentMemory(one.c.PID())
		if err != nil {
			return m, err
		}
		peak, err := peakMemory(one.c.PID())
		if err != nil {
			return m, err
		}
		*one.into = mib * (1 << 20)
		m.peak += peak * (1 << 20)
	}
	return m, nil
}

// startDue starts so many executions that wait until one moment and call a function then. It returns once all are started.
func (s *machineStack) startDue(ctx context.Context, machine string, n int, at time.Time) (functions string, err error) {
	if functions, err = s.tasks(ctx); err != nil {
		return "", err
	}
	definition := fmt.Sprintf(`{"StartAt": "W", "States": {"W": {"Type": "Wait", "TimestampPath": "$.at", "Next": "T"}, "T": {"Type": "Task", "Resource": "http://%s/%c", "End": true}}}`, functions, lastTask)
	if err := s.put(ctx, machine, "STANDARD", definition); err != nil {
		return "", err
	}
	orders := sameBook(machineConns, executionsPath(machine), "", fmt.Sprintf(`{"input":{"at":%q,"order":"%s"}}`, at.UTC().Format(time.RFC3339), stampMark))
	l := load{addr: s.addr, conns: machineConns, orders: orders, total: n, want: http.StatusCreated}
	_, err = l.run(ctx)
	return functions, err
}

// due is startDue for a moment soon after: if not all were started before it, it does it again with more time.
func (s *machineStack) due(ctx context.Context, machine string, n int) (functions string, at time.Time, err error) {
	ahead := beforeDue + time.Duration(n)*time.Second/wakeRate
	for try := range attempts {
		at = time.Now().Add(ahead).Truncate(time.Second).Add(time.Second)
		if functions, err = s.startDue(ctx, fmt.Sprintf("%s-%d", machine, try), n, at); err != nil {
			return "", at, err
		}
		if time.Until(at) > killBefore {
			return functions, at, nil
		}
		ahead *= 4
	}
	return "", at, fmt.Errorf("%d executions that wait were not started in time: is the machine busy?", n)
}

// lists measures how long it takes to list the failed executions of a machine, of which there are none: of the machine of those
// that wait, and of one of few.
func (s *machineStack) lists(ctx context.Context) error {
	for name, machine := range map[string]string{"machine_list_s": "day", "machine_list_few_s": "overdue-first"} {
		begin := time.Now()
		status, _, text, err := do(ctx, http.DefaultClient, http.MethodGet, "http://"+s.addr+executionsPath(machine)+"?status=FAILED", "", "")
		if err == nil && status != http.StatusOK {
			err = fmt.Errorf("list executions of %s: %d %s", machine, status, text)
		}
		if err != nil {
			return err
		}
		s.b.results.add(name, time.Since(begin).Seconds())
		fmt.Printf("    %-26s %7.2f s\n", name, time.Since(begin).Seconds())
	}
	return nil
}

func (s *machineStack) wakes(ctx context.Context) error {
	n := min(wakeCount, s.b.machineSleepers)
	functions, at, err := s.due(ctx, "until", n)
	if err != nil {
		return err
	}
	wait(ctx, time.Until(at))
	seen, err := untilTasks(ctx, functions, n)
	if err != nil {
		return err
	}
	first, last := time.Unix(0, seen.First).Sub(at).Seconds(), time.Unix(0, seen.Last).Sub(at).Seconds()
	s.b.results.add("machine_wake_10k_s", last)
	fmt.Printf("    %d that were due at one moment have called their functions: the first after %.2f s, the last after %.2f s\n", n, first, last)
	if first < 0 {
		return fmt.Errorf("an execution was woken %.3f s too early", -first)
	}
	return nil
}

// recovers kills the orchestrator before executions are due, and starts it anew. overdue are the functions of those that were
// put before all others and are due at a time, early. If that has passed, it is of those alone that are put now.
func (s *machineStack) recovers(ctx context.Context, overdue string, early time.Time) (err error) {
	all, late, at := []string{overdue}, "", early
	if wait(ctx, time.Until(early.Add(-beforeDue))); time.Until(early) > beforeDue/2 {
		late, err = s.startDue(ctx, "overdue-last", recoverCount, at)
	} else {
		s.b.say("THE MACHINE IS SLOW: the executions that were started first are due already, and not among those that are overdue")
		all = nil
		late, at, err = s.due(ctx, "overdue-last", recoverCount)
	}
	if err != nil {
		return err
	}
	all = append(all, late)
	wait(ctx, time.Until(at.Add(-killBefore)))
	killed := time.Now()
	s.kill()
	if err := s.startOrchestrator(); err != nil {
		return err
	}
	var first, last float64
	for n, functions := range all {
		seen, err := untilTasks(ctx, functions, recoverCount)
		if err != nil {
			return err
		}
		from, to := time.Unix(0, seen.First).Sub(killed).Seconds(), time.Unix(0, seen.Last).Sub(killed).Seconds()
		if n == 0 {
			first = from
		}
		first, last = min(first, from), max(last, to)
	}
	s.b.results.add("machine_recovery_s", first)
	s.b.results.add("machine_recovery_last_s", last)
	m, err := s.memory()
	if err != nil {
		return err
	}
	fmt.Printf("    after a kill of the orchestrator the first that was overdue has called its function %.2f s later, the last of %d %.2f s later; it has %.0f MiB then\n",
		first, len(all)*recoverCount, last, m.orchestrator/(1<<20))
	return nil
}
