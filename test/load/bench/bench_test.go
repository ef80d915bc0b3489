package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"net"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Figures are worth nothing if the orders are not distinct, or not of the size that they are said to be.
func TestOrdersAreDistinctAndOfOneKiB(t *testing.T) {
	const conns, each, passes = 4, 16, 3
	b := newOrderBook(conns, each, attributesTarget, attributesHeader)
	if b.bytes < 900 || b.bytes > 1150 {
		t.Errorf("bodies have %d bytes on average", b.bytes)
	}
	seen := map[string]bool{}
	for conn := range conns {
		for n := range uint64(passes * each) {
			_, body, _ := bytes.Cut(b.take(conn, n), []byte(headerEnd))
			var o order
			if err := json.Unmarshal(body, &o); err != nil || o.SKU == "" {
				t.Fatalf("%s: %v", body, err)
			}
			seen[o.Reference] = true
		}
	}
	if want := conns * each * passes; len(seen) != want {
		t.Errorf("%d distinct references, want %d", len(seen), want)
	}
}

func TestExchangeReadsAnswersInPieces(t *testing.T) {
	const answer = "HTTP/1.1 202 Accepted\r\nContent-Type: application/json\r\nContent-Length: 5\r\nX: y\r\n\r\nhello"
	for cut := 1; cut < len(answer); cut += 7 {
		client, server := net.Pipe()
		go func() {
			defer server.Close()
			buf := make([]byte, 16)
			if _, err := server.Read(buf); err != nil {
				t.Error(err)
			}
			for _, part := range []string{answer[:cut], answer[cut:]} {
				if _, err := server.Write([]byte(part)); err != nil {
					t.Error(err)
				}
			}
		}()
		w := &worker{conn: client, buf: make([]byte, 4096)}
		status, body, err := w.exchange([]byte("POST"))
		if err != nil || status != 202 || string(body) != "hello" {
			t.Errorf("cut at %d: %d %q %v", cut, status, body, err)
		}
		_ = client.Close()
	}
}

func TestSyncsAreCounted(t *testing.T) {
	const counts = "200,,syscalls:sys_enter_fsync,6056353,100.00,,\n3,,syscalls:sys_enter_fdatasync,6056353,100.00,,\n"
	if n, err := countOf("\n" + counts); err != nil || n != 203 {
		t.Errorf("%v, %v", n, err)
	}
	for _, text := range []string{"", "Error: no permission\n", "<not counted>,,syscalls:sys_enter_fsync,0,100.00,,\n" + counts} {
		if n, err := countOf(text); err == nil {
			t.Errorf("%q is %v", text, n)
		}
	}
}

func TestJobsThatEndedAreRead(t *testing.T) {
	const page = `# TYPE weir_jobs_ended_total counter
weir_jobs_ended_total{weir_job_status="succeeded",weir_queue="shop/orders"} 1.2e+06
weir_jobs_ended_total{weir_job_status="succeeded",weir_queue="shop/reports"} 5
weir_jobs_ended_total{weir_job_status="failed",weir_queue="shop/orders"} 2
weir_jobs_attempts_total{weir_queue="shop/orders"} 7
`
	succeeded, others, err := endedJobs(page)
	if succeeded != 1_200_005 || others != 2 || err != nil {
		t.Errorf("%d succeeded, %d others, %v", succeeded, others, err)
	}
}

func TestAliasIsTheBestThatThereIs(t *testing.T) {
	r := newResults()
	r.alias("best", "a", "b")
	if len(r.values) > 0 {
		t.Errorf("there is %v", r.values)
	}
	r.add("b", 3)
	r.alias("best", "a", "b")
	r.add("a", 5)
	r.add("a", 9)
	r.alias("best", "a", "b")
	if m := r.median("best"); m != 7 {
		t.Errorf("the best is %v", m)
	}
}

func TestFramesAreReadWhole(t *testing.T) {
	sizes := []int{0, 1, 125, 126, 65535, 65536}
	var stream []byte
	for i, n := range sizes {
		stream = append(stream, 0x80|opText)
		switch {
		case n < 126:
			stream = append(stream, byte(n))
		case n < 1<<16:
			stream = binary.BigEndian.AppendUint16(append(stream, 126), uint16(n))
		default:
			stream = binary.BigEndian.AppendUint64(append(stream, 127), uint64(n))
		}
		stream = append(stream, bytes.Repeat([]byte{byte(i)}, n)...)
	}
	for _, piece := range []int{1, 2, 3, 1000, len(stream)} {
		var got []int
		var rest []byte
		for part := range slices.Chunk(stream, piece) {
			rest = bytes.Clone(frames(append(rest, part...), func(op byte, payload []byte) {
				if op != opText || bytes.Count(payload, []byte{byte(len(got))}) != len(payload) {
					t.Errorf("in pieces of %d, frame %d: opcode %d, %.20q", piece, len(got), op, payload)
				}
				got = append(got, len(payload))
			}))
		}
		if !slices.Equal(got, sizes) || len(rest) > 0 {
			t.Errorf("in pieces of %d: frames of %v bytes, want %v; %d bytes are left", piece, got, sizes, len(rest))
		}
	}
}

// The stage in small, without Temporal: what it measures is there.
func TestMachinesAreMeasured(t *testing.T) {
	root, err := filepath.Abs(filepath.Join("..", "..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-o", bin+string(filepath.Separator), "./test/load/bench", "./services/orchestrator")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	b := &bench{results: newResults(), config: config{
		rounds: 1, window: 200 * time.Millisecond, latency: time.Second, machineCount: 200, machineSleepers: 500, withoutTemporal: true,
		root: root, dir: t.TempDir(), bin: bin, exe: filepath.Join(bin, "bench"),
	}}
	defer b.stopChildren()
	if err := b.machineStage(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, g := range goals() {
		if strings.HasPrefix(g.name, "machine_") && g.name != "machine_vs_temporal" && len(b.results.values[g.name]) == 0 {
			t.Errorf("%s was not measured", g.name)
		}
	}
}

func TestTasksTellWhatIsBetweenThem(t *testing.T) {
	client, server := net.Pipe()
	defer client.Close()
	s := &tasks{answered: map[string]time.Time{}, between: newHistogram()}
	served := make(chan struct{})
	go func() {
		defer close(served)
		s.serve(t.Context(), server)
	}()
	w := &worker{conn: client, buf: make([]byte, 4096)}
	for _, request := range []string{"POST /1 ", "POST /2 ", "POST /5 "} {
		for _, source := range []string{"a", "b"} {
			status, _, err := w.exchange([]byte(request + "HTTP/1.1\r\nCe-Source: " + source + "\r\nContent-Length: 2\r\n\r\n{}"))
			if err != nil || status != 200 {
				t.Fatal(status, err)
			}
		}
	}
	var seen tasksSeen
	if _, body, err := w.exchange([]byte("GET / HTTP/1.1\r\n\r\n")); err != nil || json.Unmarshal(body, &seen) != nil {
		t.Fatal(err)
	}
	_ = client.Close()
	<-served
	if seen.Calls != 6 || seen.Ended != 2 || seen.First > seen.Last || len(s.answered) != 0 || s.between.TotalCount() != 4 {
		t.Errorf("%+v, %d times between, %d executions under way", seen, s.between.TotalCount(), len(s.answered))
	}
}
