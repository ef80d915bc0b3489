// Package podlogs reads what the containers of a Kubernetes node print, from the files that their runtime writes below
// /var/log/pods, and gives it to package emf.
//
// Invariants: what was in a file before the follower began is not read, and no byte is read twice: after a restart lines
// are missing that were printed meanwhile, and none is counted twice. A file that is rotated is read to its end before
// the next one; one that is removed too. Files are looked at once a second, because a watch costs a place in a table of
// the kernel for each folder, and still misses what happens between two calls. Files that are open are bounded.
//
// May import: package emf.
package podlogs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/weir-dev/weir/internal/emf"
)

// Bounds of the follower.
const (
	pollEvery    = time.Second
	maxFiles     = 1024 // files of further containers wait until others are gone
	readBytes    = 64 << 10
	maxFileBytes = 4 << 20 // of a file in a row: then it is the next one's turn
	maxTurns     = 32      // then it is looked for new files: of one container 128 MiB a second are more than a core reads
)

// Container is one of a pod, as its folder below /var/log/pods says.
type Container struct{ Namespace, Pod, Name string }

// Config says what to follow. A list that is empty selects all.
type Config struct {
	Dir        string   // such as /var/log/pods
	Namespaces []string // names
	Pods       []string // patterns, as path.Match has them
	Containers []string // names
	Source     func(Container) *emf.Source
	Log        *slog.Logger
}

// Validate says what is wrong with the configuration.
func (c Config) Validate() error {
	for _, pattern := range c.Pods {
		if _, err := path.Match(pattern, ""); err != nil {
			return fmt.Errorf("the pattern of pods %q is none: write a name with * and ?, such as order-*", pattern)
		}
	}
	info, err := os.Stat(c.Dir)
	switch {
	case err != nil:
		return fmt.Errorf("the folder of the pods' logs: %w", err)
	case !info.IsDir():
		return fmt.Errorf("%s is no folder: name the one in which the kubelet keeps the pods' logs, /var/log/pods", c.Dir)
	}
	return nil
}

func (c Config) selects(of Container) bool {
	any := func(list []string, matches func(string) bool) bool {
		return len(list) == 0 || slices.ContainsFunc(list, matches)
	}
	return any(c.Namespaces, func(s string) bool { return s == of.Namespace }) &&
		any(c.Containers, func(s string) bool { return s == of.Name }) &&
		any(c.Pods, func(pattern string) bool {
			ok, err := path.Match(pattern, of.Pod)
			return err == nil && ok
		})
}

// Follower follows the files. It belongs to one goroutine.
type Follower struct {
	cfg     Config
	files   map[string]*file // by path
	passed  map[string]bool  // files that were there at first and could not be opened: what is in them is not to be read
	begun   bool
	full    bool
	failing string // the error that was logged last
	buf     []byte
}

// New returns a follower that has opened nothing.
func New(cfg Config) *Follower {
	return &Follower{cfg: cfg, files: map[string]*file{}, passed: map[string]bool{}, buf: make([]byte, readBytes)}
}

// Run follows the files until ctx is cancelled. Then it reads what there is, and closes them.
func (f *Follower) Run(ctx context.Context, ready func()) error {
	defer f.close()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	f.poll(ctx)
	ready()
	for {
		select {
		case <-ctx.Done():
			f.poll(context.WithoutCancel(ctx))
			return nil
		case <-tick.C:
			f.poll(ctx)
		}
	}
}

// poll looks for files and reads what has come: until the end of all, unless they are written faster than that.
func (f *Follower) poll(ctx context.Context) {
	f.find()
	more := true
	for turn := 0; more && turn < maxTurns && ctx.Err() == nil; turn++ {
		more = false
		for p, file := range f.files {
			goesOn, rest := file.read(f.buf)
			more = more || rest
			if !goesOn {
				file.close()
				delete(f.files, p)
			}
		}
	}
}

// find opens the files that are new: those of the first time at their end, the others at their beginning.
func (f *Follower) find() {
	there := map[string]bool{}
	full := false
	for p, c := range f.list() {
		there[p] = true
		if f.files[p] != nil {
			continue
		}
		if len(f.files) >= maxFiles {
			full = true
			if !f.begun {
				f.passed[p] = true
			}
			continue
		}
		opened, err := openFile(p, !f.begun || f.passed[p], f.cfg.Source(c))
		if err != nil {
			f.complain(err)
			continue
		}
		delete(f.passed, p)
		f.files[p] = opened
	}
	for p := range f.passed {
		if !there[p] {
			delete(f.passed, p)
		}
	}
	if full && !f.full {
		f.cfg.Log.Warn("more containers than can be followed: select namespaces, pods or containers", "files", maxFiles)
	}
	f.full, f.begun = full, true
}

// list are the files of the selected containers: DIR/NAMESPACE_POD_UID/CONTAINER/RESTARTS.log. What is rotated has
// another ending.
func (f *Follower) list() map[string]Container {
	out := map[string]Container{}
	for _, pod := range f.entries(f.cfg.Dir) {
		parts := strings.Split(pod, "_") // no name of Kubernetes has one
		if len(parts) != 3 {
			continue
		}
		dir := filepath.Join(f.cfg.Dir, pod)
		for _, name := range f.entries(dir) {
			c := Container{Namespace: parts[0], Pod: parts[1], Name: name}
			if !f.cfg.selects(c) {
				continue
			}
			for _, log := range f.entries(filepath.Join(dir, name)) {
				if strings.HasSuffix(log, ".log") {
					out[filepath.Join(dir, name, log)] = c
				}
			}
		}
	}
	return out
}

// entries are the names in a folder. One that is gone has none.
func (f *Follower) entries(dir string) []string {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, errNotDir) {
		f.complain(err)
	}
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// complain logs an error, unless it is the one that was logged last.
func (f *Follower) complain(err error) {
	if errors.Is(err, os.ErrNotExist) {
		return // it went just now
	}
	if text := err.Error(); text != f.failing {
		f.failing = text
		f.cfg.Log.Error("a container's log can't be read: its metrics are missing", "err", err)
	}
}

func (f *Follower) close() {
	for p, file := range f.files {
		file.close()
		delete(f.files, p)
	}
}

// Workload is the name of what a pod belongs to: the Knative Service, the Deployment or StatefulSet. It is as bounded as
// they are, where every pod has another name. The name of a pod follows from theirs by rule; a name that follows from
// none is the pod's own.
func Workload(pod string) string {
	rest, ok := cutRandom(pod, 5, 5)
	if !ok {
		return cmp.Or(cutDigits(pod, 1), pod) // a StatefulSet's
	}
	if of, ok := cutRandom(rest, 6, 10); ok { // the hash of a ReplicaSet
		rest = of
		if revision, knative := strings.CutSuffix(rest, "-deployment"); knative {
			return cmp.Or(cutDigits(revision, 5), revision)
		}
	}
	return cmp.Or(cutDigits(rest, 8), rest) // a CronJob's Job has the time in its name
}

// cutRandom takes off what Kubernetes has added to a name, of so many letters: they are those that make no words.
func cutRandom(name string, least, most int) (rest string, ok bool) {
	i := strings.LastIndexByte(name, '-')
	if i <= 0 || len(name)-i-1 < least || len(name)-i-1 > most || strings.Trim(name[i+1:], "bcdfghjklmnpqrstvwxz2456789") != "" {
		return name, false
	}
	return name[:i], true
}

// cutDigits takes off a number of at least so many digits, or returns "".
func cutDigits(name string, least int) string {
	i := strings.LastIndexByte(name, '-')
	if i <= 0 || len(name)-i-1 < least || strings.Trim(name[i+1:], "0123456789") != "" {
		return ""
	}
	return name[:i]
}
