package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"net"
	"slices"
	"testing"

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
