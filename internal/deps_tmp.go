package internal

import (
	_ "github.com/HdrHistogram/hdrhistogram-go"
	_ "github.com/cloudevents/sdk-go/v2"
	_ "github.com/google/uuid"
	_ "github.com/jackc/pgx/v5/pgxpool"
	_ "github.com/klauspost/compress/zstd"
	_ "github.com/nats-io/nats-server/v2/server"
	_ "github.com/nats-io/nats.go/jetstream"
	_ "github.com/pressly/goose/v3"
	_ "github.com/santhosh-tekuri/jsonschema/v6"
	_ "github.com/spf13/cobra"
	_ "go.uber.org/goleak"
	_ "golang.org/x/sync/errgroup"
	_ "k8s.io/apimachinery/pkg/apis/meta/v1"
	_ "knative.dev/serving/pkg/apis/serving/v1"
	_ "pgregory.net/rapid"
	_ "sigs.k8s.io/yaml"
)
