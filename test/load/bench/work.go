package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"
)

// work is a function that takes some time. It is a server of its own, that knows of HTTP/1.1 no more than its callers use: one
// of net/http would take as much processor time for a call that does nothing as what is measured takes for the rest of it.
type work struct {
	takes time.Duration
	first atomic.Int64 // call, in nanoseconds since 1970
}

// serveWork prints its address and serves until ctx ends, and with it the process.
func serveWork(ctx context.Context, takes time.Duration) error {
	w := &work{takes: takes}
	return serveFunctions(ctx, w.serve)
}

// serveFunctions has serve answer what comes over each connection.
func serveFunctions(ctx context.Context, serve func(context.Context, net.Conn)) error {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	fmt.Println(l.Addr())
	for {
		conn, err := l.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		go serve(ctx, conn) // ends with the process
	}
}

// serve answers one request after another.
func (w *work) serve(ctx context.Context, conn net.Conn) {
	defer func() { _ = conn.Close() }()
	in, done, h := bufio.NewReader(conn), answer200(workDone), head{}
	for {
		if err := h.read(in); err != nil {
			return // the caller notices
		}
		now := time.Now().UnixNano()
		if _, err := in.Discard(h.length); err != nil {
			return
		}
		answer := done
		if h.get {
			answer = answer200(strconv.FormatInt(w.first.Load(), 10))
		} else if w.first.CompareAndSwap(0, now); w.takes > 0 {
			wait(ctx, w.takes)
		}
		if _, err := conn.Write(answer); err != nil {
			return
		}
	}
}

func answer200(body string) []byte {
	return fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
}

// workDone is what a function answers that has nothing to say.
const workDone = `{"done":true}` + "\n"

// head is what the functions here need of a request up to its body.
type head struct {
	get    bool
	path   byte   // the last character of the path
	length int    // of the body, in bytes
	source []byte // CE-Source; good until the next read
}

// read reads the next request's.
func (h *head) read(in *bufio.Reader) error {
	line, err := in.ReadSlice('\n')
	if err != nil {
		return err
	}
	h.get, h.path, h.length, h.source = bytes.HasPrefix(line, []byte(http.MethodGet+" ")), 0, 0, h.source[:0]
	if end := bytes.LastIndexByte(line, ' '); end > 0 {
		h.path = line[end-1]
	}
	for {
		if line, err = in.ReadSlice('\n'); err != nil {
			return err
		}
		if line = bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r")); len(line) == 0 {
			return nil
		}
		name, value, _ := bytes.Cut(line, []byte(": "))
		switch {
		case bytes.EqualFold(name, []byte("Content-Length")):
			if h.length, err = strconv.Atoi(string(value)); err != nil {
				return err
			}
		case bytes.EqualFold(name, []byte("CE-Source")):
			h.source = append(h.source, value...)
		case bytes.EqualFold(name, []byte("Transfer-Encoding")), bytes.EqualFold(name, []byte("Expect")):
			return errors.New("bench: the function knows no chunks and no Expect, which bodies of 256 KiB have")
		}
	}
}
