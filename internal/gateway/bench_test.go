package gateway_test

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// BenchmarkBuffered is the handler alone, without net/http's server, as 256 connections use it.
func BenchmarkBuffered(b *testing.B) {
	f := start(b, nil, nil)
	lines := make([]string, 8)
	for i := range lines {
		lines[i] = fmt.Sprintf(`{"sku":"A-%d","name":"enamelled kettle","quantity":%d,"priceCents":%d,"tags":["x","y"]}`, i, i+1, 100*i)
	}
	body := []byte(`{"sku":"SKU-1","quantity":3,"customer":"c-4711","currency":"EUR","lines":[` + strings.Join(lines, ",") + `],"address":{"city":"Springfield","zip":"12345"}}`)
	b.ReportAllocs()
	b.SetParallelism(128)
	b.RunParallel(func(pb *testing.PB) {
		reader := bytes.NewReader(body)
		req := httptest.NewRequestWithContext(b.Context(), http.MethodPost, "/orders", reader)
		req.Header.Set("Content-Type", "application/json")
		req.ContentLength = int64(len(body))
		for pb.Next() {
			reader.Reset(body)
			rec := httptest.NewRecorder()
			f.g.ServeHTTP(rec, req)
			if rec.Code != http.StatusAccepted {
				b.Errorf("%d %s", rec.Code, rec.Body)
				return
			}
		}
	})
}
