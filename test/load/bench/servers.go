package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/weir-dev/weir/internal/localnats"
)

// The processes that bench starts itself again as: a NATS server, and the handlers and clients to compare with.
//
//	bench nats DIR            NATS as `weir local` and the tests run it; prints its URL
//	bench null                a handler that reads the body and answers 202; prints its address
//	bench wait FILE           the same, but it waits until a write to the file, which all share, is synced
//	bench publish-each URL    a handler that makes one JetStream publish a request; prints its address
//	bench work DURATION       a function that takes so long and answers 200; prints its address. GET says when it was first called
//	bench sink DURATION       the same by net/http, which reads large bodies; prints its address
//	bench tasks               the functions of five tasks, which answer at once; prints its address. GET says what it has seen
//	bench machines URL BYTES  makes the streams of executions in NATS, with room for so many bytes
//	bench provision URL FUNCTION CALLS   makes the streams and the catalog of the job stack in NATS; with 0 calls at once
//	                                     without mappings, so that nothing is dispatched
//	bench collector HOW       one of OpenTelemetry's that takes and drops what it gets, hangs or refuses; prints its address
//	bench listen              clients that listen (listener.go); prints the address at which bench asks for them
func runChild(args []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	switch {
	case args[0] == "nats" && (len(args) == 2 || len(args) == 3):
		cfg := localnats.Config{Dir: args[1]}
		if len(args) == 3 {
			var err error
			if cfg.Port, err = strconv.Atoi(args[2]); err != nil {
				return err
			}
			cfg.Token = "bench" // the same after a restart
		}
		srv, err := localnats.Start(cfg)
		if err != nil {
			return err
		}
		defer srv.Stop()
		fmt.Println(srv.URL())
		<-ctx.Done()
		return nil
	case args[0] == "null" && len(args) == 1:
		return serve(ctx, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if _, err := io.Copy(io.Discard, r.Body); err != nil {
				w.WriteHeader(http.StatusBadRequest)
				return
			}
			accept(w)
		}))
	case args[0] == "wait" && len(args) == 2:
		s, err := newSharedSync(args[1])
		if err != nil {
			return err
		}
		go s.run() // ends with the process
		return serve(ctx, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if _, err := io.Copy(io.Discard, r.Body); err != nil {
				w.WriteHeader(http.StatusBadRequest)
				return
			}
			select {
			case <-s.next():
				accept(w)
			case <-r.Context().Done():
			}
		}))
	case args[0] == "collector" && len(args) == 2:
		h, err := collector(args[1])
		if err != nil {
			return err
		}
		return serve(ctx, h)
	case args[0] == "listen" && len(args) == 1:
		l, err := newListener()
		if err != nil {
			return err
		}
		go l.run() // ends with the process
		return serve(ctx, l.handler())
	case args[0] == "sink" && len(args) == 2:
		takes, err := time.ParseDuration(args[1])
		if err != nil {
			return err
		}
		return serve(ctx, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			if _, err := io.Copy(io.Discard, r.Body); err == nil {
				wait(r.Context(), takes)
			}
		}))
	case args[0] == "work" && len(args) == 2:
		d, err := time.ParseDuration(args[1])
		if err != nil {
			return err
		}
		return serveWork(ctx, d)
	case args[0] == "tasks" && len(args) == 1:
		return serveTasks(ctx)
	case args[0] == "machines" && len(args) == 3:
		room, err := strconv.ParseInt(args[2], 10, 64)
		if err != nil {
			return err
		}
		return provisionMachines(ctx, args[1], room)
	case args[0] == "provision" && len(args) == 4:
		calls, err := strconv.Atoi(args[3])
		if err != nil {
			return err
		}
		return provisionJobs(ctx, args[1], args[2], calls)
	case args[0] == "publish-each" && len(args) == 2:
		js, err := publishEachStream(ctx, args[1])
		if err != nil {
			return err
		}
		return serve(ctx, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if err == nil {
				_, err = js.Publish(r.Context(), publishEachSubject, body)
			}
			if err != nil {
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			accept(w)
		}))
	}
	return errors.New("unknown arguments; `make bench` takes its options from the environment")
}

// accept answers as the gateway does.
func accept(w http.ResponseWriter) {
	w.Header()["Content-Type"] = []string{"application/json"}
	w.WriteHeader(http.StatusAccepted)
	_, _ = io.WriteString(w, `{"id":"01890a5d-ac96-774b-bcce-b302099a8057"}`+"\n") // the load generator notices
}

// sharedSync lets many wait for one synced write: what arrives while one is in progress waits for the next.
type sharedSync struct {
	file *os.File
	work chan struct{} // capacity 1: a write is wanted

	mu   sync.Mutex
	open chan struct{} // closed after the next write
}

func newSharedSync(path string) (*sharedSync, error) {
	f, err := os.Create(path)
	return &sharedSync{file: f, work: make(chan struct{}, 1), open: make(chan struct{})}, err
}

func (s *sharedSync) next() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case s.work <- struct{}{}:
	default:
	}
	return s.open
}

func (s *sharedSync) run() {
	block := make([]byte, 64<<10) // about what the gateway writes for 200 orders
	for range s.work {
		s.mu.Lock()
		done := s.open
		s.open = make(chan struct{})
		s.mu.Unlock()
		if _, err := s.file.WriteAt(block, 0); err != nil {
			panic(err) // the load generator notices
		}
		if err := s.file.Sync(); err != nil {
			panic(err)
		}
		close(done)
	}
}

const publishEachSubject = "bench.orders"

func publishEachStream(ctx context.Context, url string) (jetstream.JetStream, error) {
	nc, err := nats.Connect(url)
	if err != nil {
		return nil, err
	}
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, err
	}
	// As the queue's stream: see internal/stream/topology.go.
	_, err = js.CreateStream(ctx, jetstream.StreamConfig{
		Name: "BENCH", Subjects: []string{publishEachSubject}, Storage: jetstream.FileStorage,
		Retention: jetstream.LimitsPolicy, Discard: jetstream.DiscardNew, AllowDirect: true,
		MaxBytes: 10 << 30, MaxAge: 96 * time.Hour,
	})
	return js, err
}

func serve(ctx context.Context, h http.Handler) error {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	fmt.Println(l.Addr())
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	err = srv.Close()
	return errors.Join(err, ignoreClosed(<-served))
}

func ignoreClosed(err error) error {
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}
