package gateway

import (
	"net/http"
	"time"

	"github.com/weir-dev/weir/internal/problem"
)

// Bounds of HTTP/2. What a client may send ahead of its bodies' reading is in none of the gateway's budgets; of a
// connection it is as much as a system holds of one by HTTP/1.1. Each stream can have its part of it, so that a body that
// nobody reads holds up no other. A proxy in front that has more requests than streams opens one more connection.
const (
	maxStreams       = 128                           // of a connection
	maxAheadOfStream = 64 << 10                      // bytes
	maxAheadOfConn   = maxStreams * maxAheadOfStream // bytes
	pingQuietAfter   = 30 * time.Second
	writeStallAfter  = 30 * time.Second // a connection that takes no byte for as long is gone
)

// speakHTTP2 makes srv serve HTTP/2 by prior knowledge (RFC 9113, section 3.3) beside HTTP/1.1.
func speakHTTP2(srv *http.Server) {
	srv.Protocols = new(http.Protocols)
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetUnencryptedHTTP2(true)
	srv.HTTP2 = &http.HTTP2Config{
		MaxConcurrentStreams: maxStreams, MaxReceiveBufferPerStream: maxAheadOfStream, MaxReceiveBufferPerConnection: maxAheadOfConn,
		SendPingTimeout: pingQuietAfter, WriteByteTimeout: writeStallAfter,
	}
}

// streams reports whether the request shares its connection with others: what is left of its body is its stream's alone,
// and "Connection: close" would send the others away.
func streams(req *http.Request) bool { return req.ProtoMajor >= 2 }

// noSocket answers a client that wants a WebSocket by HTTP/2: RFC 8441 is not built, and 426 needs a header that HTTP/2
// forbids.
func noSocket(w http.ResponseWriter) {
	problem.Problem{
		Status: http.StatusNotImplemented, Type: problem.NoWebSocket, Title: "No WebSocket by HTTP/2",
		Detail: "Open the WebSocket by HTTP/1.1, or listen to the events of the same address.",
	}.Write(w)
}
