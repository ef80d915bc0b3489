package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"
)

const (
	dialsAtOnce = 64
	dialTimeout = 30 * time.Second
	dialTries   = 5
	seenTimeout = 15 * time.Second
)

// Kinds of clients that listen.
const (
	kindSocket     = "socket"     // a WebSocket of a job
	kindEvents     = "events"     // its Server-Sent Events
	kindCentrifugo = "centrifugo" // a WebSocket with Centrifugo's JSON protocol
)

// opening asks a listener for connections.
type opening struct {
	Kind  string
	Group string // what expect, seen and left name
	N     int
	At    string // address
	// Path is that of the job, or the channel, of all. If it is empty, each has its own: a job submitted at the URL
	// Submit, or a channel whose name begins with Name.
	Path         string
	Submit, Name string
}

// listener holds the connections of many clients, and notes when each is told what is expected. It shares the machine
// with the servers, so it does as little as it can: one goroutine reads all connections, into one buffer, and looks for
// a text in the bytes.
type listener struct {
	poll   *poll
	client *http.Client // submits

	mu     sync.Mutex
	conns  map[int]*conn // by file
	groups map[string]*group
	buf    []byte
	later  []answer // to pings and closings: written when there is nothing to read
}

// group is the connections that were opened under one name.
type group struct {
	conns   []*conn
	text    []byte        // expected; nil if nothing is
	missing int           // conns that have not been told
	told    chan struct{} // closed when none is missing
}

// conn is one client.
type conn struct {
	group *group
	kind  string
	fd    int
	rest  []byte // an incomplete frame
	at    int64  // when it was told, in nanoseconds since 1970; 0 if it was not
	why   string // the server's reason for its end
	ended bool
}

// left is what is left of a group.
type left struct {
	Open  int
	Ended map[string]int // by reason
}

type answer struct {
	conn  *conn
	frame []byte
}

func newListener() (*listener, error) {
	p, err := newPoll()
	return &listener{
		poll: p, client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: dialsAtOnce}},
		conns: map[int]*conn{}, groups: map[string]*group{}, buf: make([]byte, 64<<10),
	}, err
}

// handler is what bench asks a listener for: listeners.go has the other side.
func (l *listener) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /open", func(w http.ResponseWriter, r *http.Request) {
		var o opening
		err := json.NewDecoder(r.Body).Decode(&o)
		if err == nil {
			err = l.open(r.Context(), o)
		}
		reply(w, nil, err)
	})
	mux.HandleFunc("POST /expect", func(w http.ResponseWriter, r *http.Request) {
		l.expect(r.URL.Query().Get("group"), r.URL.Query().Get("text"))
		reply(w, nil, nil)
	})
	mux.HandleFunc("GET /seen", func(w http.ResponseWriter, r *http.Request) {
		at, err := l.seen(r.Context(), r.URL.Query().Get("group"))
		reply(w, at, err)
	})
	mux.HandleFunc("GET /left", func(w http.ResponseWriter, r *http.Request) {
		reply(w, l.left(r.URL.Query().Get("group")), nil)
	})
	return mux
}

func reply(w http.ResponseWriter, v any, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	_ = json.NewEncoder(w).Encode(v) // bench notices
}

// open connects the clients; each has read the current state then.
func (l *listener) open(ctx context.Context, o opening) error {
	l.mu.Lock()
	g := l.groups[o.Group]
	if g == nil {
		g = &group{}
		l.groups[o.Group] = g
	}
	l.mu.Unlock()
	errs := make([]error, o.N)
	var wg sync.WaitGroup
	slots := make(chan struct{}, dialsAtOnce)
	for i := range o.N {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			path, err := o.Path, error(nil)
			switch {
			case path != "":
			case o.Kind == kindCentrifugo:
				path = fmt.Sprint(o.Name, "-", i)
			default:
				path, err = submit(ctx, l.client, o.Submit)
			}
			c := &conn{group: g, kind: o.Kind}
			if err == nil {
				err = c.dial(ctx, o.At, path)
			}
			for try := 1; errors.Is(err, errAgain) && try < dialTries; try++ {
				wait(ctx, time.Second)
				err = c.dial(ctx, o.At, path)
			}
			if err == nil {
				err = l.add(c)
			}
			errs[i] = err
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// errAgain means what the server says when it has lost NATS, as it may on a machine that is too busy.
var errAgain = errors.New("the server says: try again later")

// dial connects and reads until the client has the current state, or has subscribed.
func (c *conn) dial(ctx context.Context, at, path string) error {
	nc, err := new(net.Dialer).DialContext(ctx, "tcp", at)
	if err != nil {
		return err
	}
	defer nc.Close()
	const upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
	target, header, commands, ready := path+"/socket", upgrade, "", `"status":`
	switch c.kind {
	case kindEvents:
		target, header = path+"/events", "Accept: text/event-stream\r\n"
	case kindCentrifugo:
		target, ready = "/connection/websocket", `"subscribe":`
		commands = `{"id":1,"connect":{}}` + "\n" + `{"id":2,"subscribe":{"channel":"` + path + `"}}`
	}
	if err := nc.SetDeadline(time.Now().Add(dialTimeout)); err != nil {
		return err
	}
	request := []byte("GET " + target + " HTTP/1.1\r\nHost: " + at + "\r\n" + header + "\r\n")
	if _, err := nc.Write(request); err != nil {
		return err
	}
	got, body, buf := []byte(nil), -1, make([]byte, 4<<10)
	for body < 0 || !bytes.Contains(got[body:], []byte(ready)) {
		n, err := nc.Read(buf)
		if err != nil {
			return fmt.Errorf("%s: %w after %q", target, err, got)
		}
		if bytes.Contains(buf[:n], []byte("try again later")) || bytes.HasPrefix(buf[:n], []byte("HTTP/1.1 503 ")) {
			return errAgain
		}
		got = append(got, buf[:n]...)
		i := bytes.Index(got, []byte("\r\n\r\n"))
		if body >= 0 || i < 0 {
			continue
		}
		body = i + 4
		if !bytes.HasPrefix(got, []byte("HTTP/1.1 101 ")) && !bytes.HasPrefix(got, []byte("HTTP/1.1 200 ")) {
			return fmt.Errorf("%s: %.200q", target, got)
		}
		if commands != "" {
			if _, err := nc.Write(frame(opText, []byte(commands))); err != nil {
				return err
			}
		}
	}
	if c.kind != kindEvents {
		c.rest = frames(got[body:], func(byte, []byte) {})
	}
	return c.keep(nc)
}

// keep takes the connection away from net, whose poller would be woken by each message, too.
func (c *conn) keep(nc net.Conn) error {
	raw, err := nc.(*net.TCPConn).SyscallConn()
	if err != nil {
		return err
	}
	var derr error
	err = raw.Control(func(fd uintptr) { c.fd, derr = syscall.Dup(int(fd)) })
	return cmp.Or(err, derr)
}

func (l *listener) add(c *conn) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conns[c.fd] = c
	c.group.conns = append(c.group.conns, c)
	return l.poll.add(c.fd)
}

// expect has the group's connections look for a text in what they read from now on.
func (l *listener) expect(name, text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	g := l.groups[name]
	g.text, g.missing, g.told = []byte(text), len(g.conns), make(chan struct{})
	for _, c := range g.conns {
		c.at = 0
	}
}

// seen waits until all of the group have been told what is expected, and returns when each was.
func (l *listener) seen(ctx context.Context, name string) ([]int64, error) {
	l.mu.Lock()
	g := l.groups[name]
	l.mu.Unlock()
	select {
	case <-g.told:
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(seenTimeout):
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if g.missing > 0 {
		return nil, fmt.Errorf("%d of %d were not told %q; connections have ended: %v", g.missing, len(g.conns), g.text, g.ended())
	}
	at := make([]int64, len(g.conns))
	for i, c := range g.conns {
		at[i] = c.at
	}
	g.text = nil
	return at, nil
}

// left are the connections of the group that are open.
func (l *listener) left(name string) left {
	l.mu.Lock()
	defer l.mu.Unlock()
	g := l.groups[name]
	ended := g.ended()
	n := len(g.conns)
	for _, ends := range ended {
		n -= ends
	}
	return left{Open: n, Ended: ended}
}

// ended is how many connections have ended, by reason.
func (g *group) ended() map[string]int {
	n := map[string]int{}
	for _, c := range g.conns {
		if c.ended {
			n[c.why]++
		}
	}
	return n
}

// run reads all connections. It ends with the process.
func (l *listener) run() {
	for block := true; ; {
		ready, err := l.poll.wait(block)
		if err != nil {
			panic(err) // bench notices
		}
		l.mu.Lock()
		for _, fd := range ready {
			if c := l.conns[fd]; c != nil {
				l.read(c)
			}
		}
		if len(ready) == 0 {
			for _, a := range l.later {
				if !a.conn.ended {
					_, _ = syscall.Write(a.conn.fd, a.frame) // a connection that has ended is read next
				}
			}
			l.later = l.later[:0]
		}
		block = len(l.later) == 0
		l.mu.Unlock()
	}
}

func (l *listener) read(c *conn) {
	n, err := syscall.Read(c.fd, l.buf)
	switch {
	case errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.EINTR):
		return
	case err != nil || n == 0:
		if c.ended = true; c.why == "" && err != nil {
			c.why = err.Error()
		}
		delete(l.conns, c.fd)
		_ = syscall.Close(c.fd)
		return
	case c.kind == kindEvents: // only idle ones are measured
		return
	}
	data := l.buf[:n]
	if len(c.rest) > 0 {
		data = append(c.rest, data...)
	}
	c.rest = bytes.Clone(frames(data, func(op byte, payload []byte) { l.take(c, op, payload) }))
}

// take handles one frame of a server.
func (l *listener) take(c *conn, op byte, payload []byte) {
	g := c.group
	switch {
	case op == opPing:
		l.later = append(l.later, answer{c, frame(opPong, payload)})
		return
	case op == opClose:
		c.why = string(payload[min(2, len(payload)):]) // after its code
		l.later = append(l.later, answer{c, frame(opClose, payload)})
		return
	case c.kind == kindCentrifugo && (bytes.HasPrefix(payload, []byte("{}")) || bytes.Contains(payload, []byte("\n{}"))):
		// Its ping, which may share a frame with a message.
		l.later = append(l.later, answer{c, frame(opText, []byte("{}"))})
	}
	if g.text != nil && c.at == 0 && bytes.Contains(payload, g.text) {
		c.at = time.Now().UnixNano()
		if g.missing--; g.missing == 0 {
			close(g.told)
		}
	}
}

// Opcodes of RFC 6455, section 5.2.
const (
	opText  = 0x1
	opClose = 0x8
	opPing  = 0x9
	opPong  = 0xA
)

// frames calls each for the whole frames that data begins with, which a server does not mask, and returns what follows.
func frames(data []byte, each func(op byte, payload []byte)) (rest []byte) {
	for len(data) >= 2 {
		n, head := int(data[1]), 2
		switch {
		case n == 126 && len(data) >= 4:
			n, head = int(binary.BigEndian.Uint16(data[2:])), 4
		case n == 127 && len(data) >= 10:
			n, head = int(binary.BigEndian.Uint64(data[2:])), 10
		case n >= 126:
			return data
		}
		if len(data)-head < n {
			return data
		}
		each(data[0]&0xf, data[head:head+n])
		data = data[head+n:]
	}
	return data
}

// frame is a whole message of a client, of less than 126 bytes, masked with zeros.
func frame(op byte, payload []byte) []byte {
	return append([]byte{0x80 | op, 0x80 | byte(len(payload)), 0, 0, 0, 0}, payload...)
}
