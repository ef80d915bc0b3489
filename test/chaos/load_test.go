package chaos_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/weir-dev/weir/internal/testkit"
)

// hangTimeout is when the load counts a request as hung: much later than any may take.
const hangTimeout = 20 * time.Second

// verifyTimeout is how long after the load the rows may take.
const verifyTimeout = time.Minute

// load posts distinct orders over many keep-alive connections, and never the same one twice. It talks
// HTTP/1.1 by hand: net/http's client would retry by itself.
type load struct {
	t     testing.TB
	addr  string
	tag   string // the orders' sku: distinguishes this load's rows
	conns int
	// pause is how long a connection waits after an answer that was no 202, or when it can't connect.
	pause time.Duration
	every time.Duration // at least between two requests of one connection; 0 means as fast as possible
	total int           // orders; 0 means until stopped
	body  func(n int) []byte

	next atomic.Int64
	stop chan struct{}
	wg   sync.WaitGroup

	mu       sync.Mutex
	accepted map[string]int // id → n
	statuses map[int]int
	bad      []string // answers that are neither 202, 429 nor 503
	unknown  int      // no answer: the connection broke
	hung     int      // no answer within hangTimeout
	answers  []answer
}

// answer is one that was no 202, or was slow.
type answer struct {
	sent, got time.Time
	status    int
}

func newLoad(t testing.TB, addr string, conns, total int) *load {
	return &load{
		t: t, addr: addr, conns: conns, total: total, pause: 20 * time.Millisecond,
		tag: fmt.Sprintf("%.40s-%08x", strings.ReplaceAll(t.Name(), "/", "-"), rand.Uint32()), stop: make(chan struct{}),
		accepted: map[string]int{}, statuses: map[int]int{},
	}
}

// order is order n of about 1 KiB.
func (l *load) order(n int) []byte {
	if l.body != nil {
		return l.body(n)
	}
	return l.plain(n)
}

func (l *load) plain(n int) []byte {
	b := fmt.Appendf(nil, `{"sku":%q,"quantity":%d,"customer":"customer-%d","n":%d,"note":"`, l.tag, n%9+1, n%1000, n)
	r := rand.New(rand.NewPCG(uint64(n), 1))
	for len(b) < 1000 {
		b = fmt.Appendf(b, "%08x ", r.Uint32())
	}
	return append(b, `"}`...)
}

// start starts the connections; wait waits until all orders are posted, finish ends them before.
func (l *load) start() {
	for range l.conns {
		l.wg.Go(l.connection)
	}
	l.t.Cleanup(l.finish)
}

func (l *load) wait() {
	l.t.Helper()
	l.wg.Wait()
}

func (l *load) finish() {
	select {
	case <-l.stop:
	default:
		close(l.stop)
	}
	l.wg.Wait()
}

func (l *load) sent() int { return int(l.next.Load()) }

// idle waits d; false means that the load is to stop.
func (l *load) idle(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-l.stop:
		return false
	}
}

func (l *load) connection() {
	var conn net.Conn
	var in *bufio.Reader
	defer func() {
		if conn != nil {
			_ = conn.Close()
		}
	}()
	var req []byte
	for {
		select {
		case <-l.stop:
			return
		default:
		}
		if conn == nil {
			var err error
			if conn, err = net.DialTimeout("tcp", l.addr, hangTimeout); err != nil {
				conn = nil
				if !l.idle(l.pause) {
					return
				}
				continue
			}
			in = bufio.NewReaderSize(conn, 4<<10)
		}
		n := int(l.next.Add(1))
		if l.total > 0 && n > l.total {
			return
		}
		body := l.order(n)
		req = fmt.Appendf(req[:0], "POST /orders HTTP/1.1\r\nHost: weir\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", len(body))
		req = append(req, body...)
		sent := time.Now()
		status, id, err := exchange(conn, in, req)
		l.record(n, answer{sent, time.Now(), status}, id, err)
		wait := l.every - time.Since(sent)
		if err != nil {
			_ = conn.Close()
			conn, wait = nil, l.pause
		} else if status != http.StatusAccepted {
			wait = max(wait, l.pause)
		}
		if wait > 0 && !l.idle(wait) {
			return
		}
	}
}

// exchange sends a request and returns the status of its answer and the id in it.
func exchange(conn net.Conn, in *bufio.Reader, req []byte) (status int, id string, err error) {
	_ = conn.SetDeadline(time.Now().Add(hangTimeout))
	if _, err := conn.Write(req); err != nil {
		return 0, "", err
	}
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, "", err
	}
	if resp.StatusCode != http.StatusAccepted {
		return resp.StatusCode, string(body), nil
	}
	var got struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal(body, &got); err != nil || got.ID == "" {
		return http.StatusAccepted, "", nil // record reports a 202 without an id
	}
	return resp.StatusCode, got.ID, nil
}

func (l *load) record(n int, a answer, id string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		if ne, ok := err.(net.Error); ok && ne.Timeout() { //nolint:errorlint // net returns it bare
			l.hung++
		} else {
			l.unknown++
		}
		return
	}
	l.statuses[a.status]++
	switch a.status {
	case http.StatusAccepted:
		if _, twice := l.accepted[id]; twice || id == "" {
			l.bad = append(l.bad, fmt.Sprintf("202 with the id %q, which is empty or was given before", id))
		}
		l.accepted[id] = n
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
	default:
		l.bad = append(l.bad, fmt.Sprintf("%d: %.300s", a.status, id))
	}
	l.answers = append(l.answers, a)
}

// acceptedCount returns the number of 202s so far.
func (l *load) acceptedCount() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.accepted)
}

// count returns how many answers had the status so far.
func (l *load) count(status int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.statuses[status]
}

// slowest returns the longest time that an answer took that was in flight at some moment of the interval, and how many
// of them had the status.
func (l *load) slowest(from, to time.Time, status int) (longest time.Duration, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, a := range l.answers {
		if a.got.Before(from) || a.sent.After(to) {
			continue
		}
		longest = max(longest, a.got.Sub(a.sent))
		if a.status == status {
			n++
		}
	}
	return longest, n
}

// percentile returns the p-th percentile of the latencies of the answers of a status that were in flight at some moment of
// the interval.
func (l *load) percentile(p float64, status int, from, to time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	var ds []time.Duration
	for _, a := range l.answers {
		if a.status == status && !a.got.Before(from) && !a.sent.After(to) {
			ds = append(ds, a.got.Sub(a.sent))
		}
	}
	if len(ds) == 0 {
		return 0
	}
	slices.Sort(ds)
	return ds[min(len(ds)-1, int(p*float64(len(ds))))]
}

// verify waits until every order that got a 202 is a row, and checks that each is there once, under its id, and that
// no request hung or got an answer outside the contract. exact means that there are no other rows; otherwise orders
// without a 202 may be rows (their answer was lost, or said "unknown").
func (l *load) verify(exact bool) (rows int) {
	l.t.Helper()
	l.mu.Lock()
	accepted, statuses, unknown, hung, bad := l.accepted, fmt.Sprint(l.statuses), l.unknown, l.hung, l.bad
	l.mu.Unlock()
	if hung > 0 {
		l.t.Errorf("%d requests had no answer within %s", hung, hangTimeout)
	}
	for i, b := range bad {
		if i == 10 {
			l.t.Errorf("… and %d more", len(bad)-i)
			break
		}
		l.t.Errorf("an answer against the contract: %s", b)
	}
	if len(accepted) == 0 {
		l.t.Fatalf("no order was accepted: %s", statuses)
	}
	ctx := l.t.Context()
	deadline := time.NewTimer(verifyTimeout)
	defer deadline.Stop()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	db := connect(l.t, parts.db.DirectURL())
	start := time.Now()
	testkit.Eventually(l.t, "the schema is there", func() bool {
		var there bool
		return db.QueryRow(ctx, `SELECT to_regclass('orders') IS NOT NULL`).Scan(&there) == nil && there
	})
	for {
		var n int
		if err := db.QueryRow(ctx, `SELECT count(*) FROM orders WHERE sku = $1`, l.tag).Scan(&n); err != nil {
			l.t.Fatal(err)
		}
		if n >= len(accepted) {
			rows, missing := l.compare(ctx, db, accepted, exact)
			if missing == 0 {
				l.t.Logf("answers %s, unknown %d; %d rows, all %d accepted orders among them, %s after the load", statuses, unknown, rows, len(accepted), time.Since(start).Round(time.Millisecond))
				return rows
			}
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			_, missing := l.compare(ctx, db, accepted, false)
			l.t.Fatalf("%d of %d accepted orders are no rows (answers %s, unknown %d, rows %d)", missing, len(accepted), statuses, unknown, n)
		}
	}
}

func (l *load) compare(ctx context.Context, db *pgx.Conn, accepted map[string]int, exact bool) (count, missing int) {
	l.t.Helper()
	rows, err := db.Query(ctx, `SELECT id::text, (body->>'n')::int FROM orders WHERE sku = $1`, l.tag)
	if err != nil {
		l.t.Fatal(err)
	}
	defer rows.Close()
	seen := map[int]string{}
	found := 0
	for rows.Next() {
		var id string
		var n int
		if err := rows.Scan(&id, &n); err != nil {
			l.t.Fatal(err)
		}
		if other, twice := seen[n]; twice {
			l.t.Fatalf("order %d is a row twice: %s and %s", n, other, id)
		}
		seen[n] = id
		switch want, ok := accepted[id]; {
		case ok && want != n:
			l.t.Fatalf("row %s holds order %d; order %d got that id", id, n, want)
		case ok:
			found++
		case exact:
			l.t.Fatalf("order %d is a row (%s) and got no 202", n, id)
		}
	}
	if err := rows.Err(); err != nil {
		l.t.Fatal(err)
	}
	return len(seen), len(accepted) - found
}

// connect opens a database connection of the test's own, which the counts leave out by its name.
func connect(t testing.TB, url string) *pgx.Conn {
	t.Helper()
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	cfg.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol // PgBouncer's console knows no other
	cfg.RuntimeParams["application_name"] = "chaos"
	conn, err := pgx.ConnectConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// waitAccepted waits until n more orders have got a 202.
func (l *load) waitAccepted(n int) {
	l.t.Helper()
	want := l.acceptedCount() + n
	testkit.Eventually(l.t, fmt.Sprintf("%d more orders are accepted", n), func() bool { return l.acceptedCount() >= want })
}

// hold lets time pass while the load goes on.
func hold(t testing.TB, d time.Duration) {
	t.Helper()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.Context().Done():
		t.Fatal(t.Context().Err())
	}
}
