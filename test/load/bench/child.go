package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/weir-dev/weir/internal/childproc"
	"github.com/weir-dev/weir/internal/localdb"
)

const (
	readyTimeout = 30 * time.Second
	stopTimeout  = 10 * time.Second // then it is killed: its data is thrown away anyway
)

// child is a server process.
type child struct {
	*childproc.Process
	name string
	log  string // file
}

// start runs program, with its output in a file.
func (b *bench) start(name, program string, args, env []string) (*child, error) {
	log := b.folder(name) + ".log"
	out, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd := exec.Command(program, args...) //nolint:noctx // ended by stop, which first sends SIGTERM
	cmd.Dir, cmd.Stdout, cmd.Stderr = b.root, out, out
	cmd.Env = append(os.Environ(), env...)
	p, err := childproc.Start(cmd, syscall.SIGKILL)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	c := &child{Process: p, name: name, log: log}
	b.children = append(b.children, c)
	return c, nil
}

// stop sends SIGTERM, and kills the process after stopTimeout. It is idempotent.
func (c *child) stop() {
	c.Signal(syscall.SIGTERM)
	t := time.NewTimer(stopTimeout)
	defer t.Stop()
	select {
	case <-c.Done():
	case <-t.C:
		c.Signal(syscall.SIGKILL)
		<-c.Done()
	}
}

// stopChildren ends all that run, the last started first.
func (b *bench) stopChildren() {
	for _, c := range slices.Backward(b.children) {
		c.stop()
	}
	b.children = nil
}

// failure is an error with the end of the child's log.
func (c *child) failure(what string) error {
	text, err := os.ReadFile(c.log)
	if err != nil {
		return fmt.Errorf("%s %s: %w", c.name, what, err)
	}
	return fmt.Errorf("%s %s; its log ends with:\n%s", c.name, what, text[max(0, len(text)-2000):])
}

// until waits for ready to be true.
func (c *child) until(ctx context.Context, ready func() bool) error {
	return c.untilIn(ctx, readyTimeout, ready)
}

func (c *child) untilIn(ctx context.Context, d time.Duration, ready func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	for !ready() {
		select {
		case <-c.Done():
			return c.failure(fmt.Sprintf("ended (%s)", c.State()))
		case <-ctx.Done():
			return c.failure("was not ready in time")
		default:
			wait(ctx, 20*time.Millisecond)
		}
	}
	return nil
}

// answers waits until a GET of url is answered with 200.
func (c *child) answers(ctx context.Context, url string) error {
	return c.answersIn(ctx, readyTimeout, url)
}

func (c *child) answersIn(ctx context.Context, d time.Duration, url string) error {
	return c.untilIn(ctx, d, func() bool {
		status, _ := get(ctx, http.MethodGet, url, "", nil)
		return status == http.StatusOK
	})
}

// get makes one request; status is 0 when there was no answer.
func get(ctx context.Context, method, url, contentType string, body []byte) (status int, answer string) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return 0, ""
	}
	req.Close = true
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, ""
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, ""
	}
	return resp.StatusCode, string(text)
}

// freeAddress returns an address on loopback that was free a moment ago.
func freeAddress(ctx context.Context) (string, error) {
	port, err := localdb.FreePort(ctx)
	return fmt.Sprintf("127.0.0.1:%d", port), err
}

// clockTicks a second: the unit of /proc/PID/stat, the same on every Linux that Go runs on.
const clockTicks = 100

// cpuTime is the user and system time of the processes so far; 0 if there is no /proc.
func cpuTime(pids ...int) time.Duration {
	var ticks uint64
	for _, pid := range pids {
		if f := statFields(pid); len(f) > 12 {
			for _, s := range f[11:13] { // utime and stime: fields 14 and 15 of proc(5)
				n, err := strconv.ParseUint(s, 10, 64)
				if err == nil {
					ticks += n
				}
			}
		}
	}
	return time.Duration(ticks) * time.Second / clockTicks
}

// machineCPU is the time that all CPUs have been busy so far; 0 if there is no /proc.
func machineCPU() time.Duration {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	head, _, _ := strings.Cut(string(text), "\n")
	var ticks uint64
	for i, s := range strings.Fields(head) {
		switch i { // cpu user nice system idle iowait irq softirq steal: see proc(5)
		case 1, 2, 3, 6, 7, 8:
			if n, err := strconv.ParseUint(s, 10, 64); err == nil {
				ticks += n
			}
		}
	}
	return time.Duration(ticks) * time.Second / clockTicks
}

// othersShare of the machine's CPU taken by processes that are not the bench's makes a measurement doubtful.
const othersShare = 0.08

// watchOthers returns a function that returns the share of the CPU that other processes have taken since. The bench's
// processes must be the same at both times.
func (b *bench) watchOthers() func() float64 {
	took := func() time.Duration {
		d := machineCPU() - ownCPU()
		for _, c := range b.children {
			d -= cpuTime(c.PID())
		}
		if b.db != nil {
			d -= cpuTime(append(family(b.db.PostgresPID()), b.db.PgBouncerPID())...)
		}
		return d
	}
	start, before := time.Now(), took()
	return func() float64 {
		return max(0, (took()-before).Seconds()/time.Since(start).Seconds()/float64(runtime.NumCPU()))
	}
}

// crowd records the share and returns a warning if it was large.
func (b *bench) crowd(others float64) string {
	b.results.add("others_cpu_share", others)
	if others < othersShare {
		return ""
	}
	return fmt.Sprintf("  (others took %.0f %% of the CPU)", 100*others)
}

// statFields are the fields of /proc/PID/stat after the program's name, from field 3 on.
func statFields(pid int) []string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	return strings.Fields(rest)
}

// family is pid and its children: PostgreSQL's postmaster and its backends.
func family(pid int) []int {
	pids := []int{pid}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return pids
	}
	for _, e := range entries {
		if n, err := strconv.Atoi(e.Name()); err == nil {
			if f := statFields(n); len(f) > 1 && f[1] == strconv.Itoa(pid) {
				pids = append(pids, n)
			}
		}
	}
	return pids
}

// peakMemory is the peak resident set of a process in MiB (VmHWM).
func peakMemory(pid int) (float64, error) { return memoryOf(pid, "VmHWM:") }

func memoryOf(pid int, field string) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for l := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(l, field); ok {
			kib, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			return kib / 1024, err
		}
	}
	return 0, errors.New("no " + field)
}

// folderBytes is the size of all files below dir.
func folderBytes(dir string) (int64, error) {
	var n int64
	err := filepath.WalkDir(dir, func(_ string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if errors.Is(err, os.ErrNotExist) {
			return nil // a temporary file of the server's
		}
		if err == nil {
			n += info.Size()
		}
		return err
	})
	return n, err
}
