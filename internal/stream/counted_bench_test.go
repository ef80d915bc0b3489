package stream_test

import (
	"crypto/rand"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/stream"
	"github.com/weir-dev/weir/internal/testkit"
)

// benchQueue has a queue with room for what benchmarks write.
func benchQueue(b *testing.B) (*stream.Conn, jetstream.JetStream, catalog.Key) {
	b.Helper()
	srv := testkit.NATS(b)
	conn := testkit.Conn(b, srv)
	q := catalog.Queue{Key: catalog.Key{Namespace: "default", Name: "orders"}, MaxAge: time.Hour, MaxBytes: 8 << 30, DeadLetterMaxAge: time.Hour}
	if err := conn.EnsureQueue(b.Context(), q, 1); err != nil {
		b.Fatal(err)
	}
	return conn, testkit.JetStream(b, srv), q.Key
}

// BenchmarkCountedSubject is the write of a block of 64 KiB with a subject that is always the same, and with one of the 500
// that say how many records it has: what it costs that NATS counts the records. cpu-ns/op is of both, client and server.
func BenchmarkCountedSubject(b *testing.B) {
	block := make([]byte, 64<<10)
	_, _ = rand.Read(block)
	for _, distinct := range []int{1, 500} {
		b.Run(fmt.Sprintf("subjects=%d", distinct), func(b *testing.B) {
			_, js, k := benchQueue(b)
			before := testkit.ProcessorTime(b)
			for i := range b.N {
				if _, err := js.Publish(b.Context(), fmt.Sprintf("weir.q.%s.%s.n.%d", k.Namespace, k.Name, 1+i*7%distinct), block); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(testkit.ProcessorTime(b)-before)/float64(b.N), "cpu-ns/op")
		})
	}
}

// BenchmarkDepth is one reading of a queue with 5,000 blocks of all 500 sizes, without an owner. There is one in ten seconds.
func BenchmarkDepth(b *testing.B) {
	conn, js, k := benchQueue(b)
	for i := range 5000 {
		if _, err := js.PublishAsync(fmt.Sprintf("weir.q.%s.%s.n.%d", k.Namespace, k.Name, 1+i%500), []byte("block")); err != nil {
			b.Fatal(err)
		}
		if i%100 == 99 {
			<-js.PublishAsyncComplete()
		}
	}
	b.ResetTimer()
	before := testkit.ProcessorTime(b)
	for range b.N {
		if _, err := conn.Depth(b.Context(), k); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(testkit.ProcessorTime(b)-before)/float64(b.N), "cpu-ns/op")
}
