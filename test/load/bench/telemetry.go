package main

import (
	"context"
	"io"
	"net/http"
)

// telemetryKind is how much of its work a service tells about.
type telemetryKind int

const (
	telemetryAsShipped telemetryKind = iota // metrics on a page
	telemetryOff
	telemetrySampled // metrics pushed, too, each second; one trace of a hundred
	telemetryFull    // the same, and every trace
)

// telemetryEnv is a service's environment for it, and the collector, which drops what it gets; nil if there is none.
func (b *bench) telemetryEnv(ctx context.Context, kind telemetryKind) (env []string, collector *child, err error) {
	switch kind {
	case telemetryAsShipped:
		return nil, nil, nil
	case telemetryOff:
		return []string{"OTEL_SDK_DISABLED=true"}, nil, nil
	}
	collector, addr, err := b.self(ctx, "collector", "collector")
	if err != nil {
		return nil, nil, err
	}
	share := "0.01"
	if kind == telemetryFull {
		share = "1"
	}
	return []string{
		"OTEL_EXPORTER_OTLP_ENDPOINT=http://" + addr, "OTEL_METRIC_EXPORT_INTERVAL=1000",
		"OTEL_TRACES_SAMPLER=parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG=" + share,
	}, collector, nil
}

// collector is the handler of a collector that drops all.
func collector(w http.ResponseWriter, r *http.Request) {
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	w.Header()["Content-Type"] = []string{"application/x-protobuf"} // of an empty answer: all was taken
}
