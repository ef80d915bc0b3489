package docs_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weir-dev/weir/internal/localdb"
)

const (
	// readyBound is for a machine that compiles everything for the first time.
	readyBound = 5 * time.Minute
	// outputBound is for what comes after a while: five attempts take 8 to 15 s.
	outputBound = time.Minute
	again       = 200 * time.Millisecond
)

// TestCommands runs make run in a copy of the checkout and then, in order, every sh block of README.md, of
// docs/tour.md, of docs/operations.md and of docs/state-machines.md, and compares what they print with the text block after each. Ids and times differ from
// run to run; an id that was printed is put into the commands that come after it.
func TestCommands(t *testing.T) {
	for _, program := range []string{"bash", "make", "go", "curl", "psql"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Fatalf("the commands of the documentation need %s: install it (hack/install-deps.sh installs psql and curl)", program)
		}
	}
	s := &shell{t: t, dir: copyCheckout(t), ids: map[string]string{}, prelude: "source .weir/env\n"}
	ports := freePorts(t, 3)
	address := func(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }
	// psql and curl as a person has them, whatever this account's configuration says.
	s.env = append(os.Environ(), "PSQLRC=/dev/null", "CURL_HOME="+s.dir, "WEIR_LISTEN="+address(ports[0]), "WEIR_TELEMETRY=1")
	write(t, filepath.Join(s.dir, ".curlrc"), "silent\nshow-error\n")
	s.ports = strings.NewReplacer("127.0.0.1:8081", address(ports[1]),
		"127.0.0.1:9000", address(ports[2]), "PORT=9000", fmt.Sprintf("PORT=%d", ports[2]))

	makeRun := s.background("make run")
	t.Cleanup(func() { // before the folder goes
		makeRun.stop()
		if out, err := s.once("make clean-data"); err != nil {
			t.Errorf("make clean-data: %v\n%s", err, out)
		}
		if !strings.Contains(makeRun.output(), "Everything has ended.") {
			t.Errorf("make run did not end in order:\n%s", makeRun.output())
		}
	})
	s.eventually("make run is ready", readyBound, func() error {
		if out := makeRun.output(); strings.Contains(out, "[ended") {
			t.Fatalf("make run ended:\n%s", out)
		}
		_, err := os.Stat(filepath.Join(s.dir, ".weir", "env"))
		return err
	})

	blocks := slices.Concat(read(t, "README.md").blocks(), read(t, "docs/tour.md").blocks(), read(t, "docs/operations.md").blocks(), read(t, "docs/state-machines.md").blocks())
	started := map[string]*background{"make run": makeRun}
	for _, b := range blocks {
		if path, ok := strings.CutPrefix(b.mark, "file: "); ok {
			write(t, filepath.Join(s.dir, path), b.text)
		}
	}
	ran := s.follow(blocks, started)
	if ran < 12 {
		t.Errorf("only %d commands were run", ran)
	}
}

// follow runs the blocks in their order, and returns how many commands that were. started are the commands that run in
// terminals of their own, by what they are without PORT=….
func (s *shell) follow(blocks []block, started map[string]*background) (ran int) {
	s.t.Helper()
	for i, b := range blocks {
		printer, printed := strings.CutPrefix(b.mark, "printed by: ")
		switch {
		case b.lang == "sh" && b.mark == "terminal":
			_, command, _ := strings.Cut(strings.TrimSpace(b.text), " ") // without PORT=…
			started[command] = s.background(b.text)
		case b.lang == "sh":
			expected := ""
			if i+1 < len(blocks) && blocks[i+1].lang == "text" && blocks[i+1].after {
				expected = blocks[i+1].text
			}
			s.run(b, expected)
			ran++
		case printed:
			by := started[printer]
			if by == nil {
				s.t.Fatalf("%s:%d: nothing was started as %q", b.page, b.line, printer)
			}
			s.eventually(printer+" prints what it should", outputBound, func() error {
				if want, got := normal(s.actual(b.text)), normal(by.output()); !strings.Contains(got, want) {
					return fmt.Errorf("%s:%d: %s printed\n%s\nwant\n%s", b.page, b.line, printer, got, want)
				}
				return nil
			})
		}
	}
	return ran
}

// copyCheckout copies what is needed to run Weir. Not below t.TempDir: PostgreSQL's user must get there
// when root runs the tests.
func copyCheckout(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "weir-docs-") //nolint:usetesting // see above
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, top := range []string{"Makefile", "go.mod", "go.sum", "api", "cmd", "deploy", "examples", "function", "hack", "internal"} {
		err := filepath.WalkDir(filepath.Join(root, top), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || strings.HasSuffix(path, "_test.go") {
				return err
			}
			info, err := d.Info()
			if err != nil {
				return err
			}
			content, err := os.ReadFile(path)
			if errors.Is(err, fs.ErrNotExist) {
				return nil // an editor's passing file
			}
			rel, rerr := filepath.Rel(root, path)
			if err = errors.Join(err, rerr); err != nil {
				return err
			}
			to := filepath.Join(dir, rel)
			return errors.Join(os.MkdirAll(filepath.Dir(to), 0o755), os.WriteFile(to, content, info.Mode().Perm()))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o600)); err != nil {
		t.Fatal(err)
	}
}

// freePorts are free at the moment, and differ: what is started listens on them much later.
func freePorts(t *testing.T, n int) []int {
	t.Helper()
	var ports []int
	for range n {
		port, err := localdb.FreePort(t.Context(), ports...)
		if err != nil {
			t.Fatal(err)
		}
		ports = append(ports, port)
	}
	return ports
}

// shell runs commands in the copy.
type shell struct {
	t     *testing.T
	dir   string
	env   []string
	ports *strings.Replacer
	ids   map[string]string // as documented → as printed

	prelude string // of each command
}

// actual puts this run's ids and ports in the place of the documented ones.
func (s *shell) actual(text string) string {
	return uuid.ReplaceAllStringFunc(s.ports.Replace(text), func(id string) string {
		if known, ok := s.ids[id]; ok {
			return known
		}
		return id
	})
}

// once runs a script to its end and returns what it printed.
func (s *shell) once(script string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), outputBound)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", script)
	cmd.Dir, cmd.Env = s.dir, s.env
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// changes are commands that must not be repeated. While nothing answers (curl's exit code 7) they have
// changed nothing.
var changes = regexp.MustCompile(` -d |redrive|purge`)

// run runs a block until it prints what it should, or once if it changes something.
func (s *shell) run(b block, expected string) {
	s.t.Helper()
	s.eventually(fmt.Sprintf("%s:%d prints what it should", b.page, b.line), outputBound, func() error {
		out, err := s.once(s.prelude + s.actual(b.text))
		if err == nil && expected != "" {
			err = s.compare(s.actual(expected), out)
		}
		if err == nil {
			return nil
		}
		err = fmt.Errorf("%s:%d: %s%w\n%s", b.page, b.line, b.text, err, out)
		var exit *exec.ExitError
		unreached := errors.As(err, &exit) && exit.ExitCode() == 7
		if changes.MatchString(b.text) && !unreached {
			s.t.Fatal(err)
		}
		return err
	})
}

// compare holds what was printed against the documentation and learns the ids.
func (s *shell) compare(want, got string) error {
	if w, g := normal(want), normal(got); w != g {
		return fmt.Errorf("documented as\n%s\nprinted", w)
	}
	wants, gots := uuid.FindAllString(want, -1), uuid.FindAllString(got, -1)
	for i, id := range wants {
		if known, ok := s.ids[id]; ok && known != gots[i] {
			return fmt.Errorf("%s stands for %s already, now for %s", id, known, gots[i])
		}
		if id != gots[i] {
			s.ids[id] = gots[i]
		}
	}
	return nil
}

var (
	// uuid is a record's id, or a job's.
	uuid     = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|[0-9A-Za-z_-]{60}`)
	varying  = regexp.MustCompile(`Date: .* GMT|\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|\+\d\d)?|127\.0\.0\.1:\d+|after [\d.]+ s|"catalog":"\w+"`)
	trailing = regexp.MustCompile(`[ \t\r]+\n`)
)

// normal is text without what differs from run to run.
func normal(text string) string {
	text = varying.ReplaceAllString(uuid.ReplaceAllString(text, "ID"), "VARYING")
	return strings.TrimSpace(trailing.ReplaceAllString(text+"\n", "\n"))
}

func (s *shell) eventually(what string, bound time.Duration, try func() error) {
	s.t.Helper()
	deadline := time.NewTimer(bound)
	defer deadline.Stop()
	tick := time.NewTicker(again)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			s.t.Fatalf("waited %s in vain until %s: %v", bound, what, err)
		}
	}
}

// background is a command in a terminal of its own.
type background struct {
	out   string // file
	input interface{ Close() error }
	cmd   *exec.Cmd
}

// supervise runs $1 in a process group of its own until the input is closed, which also happens when the
// test dies; then it gets what Ctrl-C sends.
const supervise = `set -m
( eval "$1"; echo "[ended: $?]" ) </dev/null &
read -r _
kill -INT -- -$!
wait $!`

func (s *shell) background(script string) *background {
	s.t.Helper()
	f, err := os.CreateTemp(s.t.TempDir(), "output")
	if err != nil {
		s.t.Fatal(err)
	}
	defer f.Close()
	cmd := exec.CommandContext(context.WithoutCancel(s.t.Context()), "bash", "-c", supervise, "bash", s.actual(script))
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = s.dir, s.env, f, f
	input, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		s.t.Fatal(err)
	}
	b := &background{out: f.Name(), input: input, cmd: cmd}
	s.t.Cleanup(b.stop)
	return b
}

func (b *background) output() string {
	out, err := os.ReadFile(b.out)
	if err != nil {
		return err.Error()
	}
	return string(bytes.TrimSpace(out))
}

// stop is idempotent.
func (b *background) stop() {
	_ = b.input.Close()
	_ = b.cmd.Wait() // the exit code of an interrupted command says nothing; a second Wait is refused
}
