package stream

import (
	"context"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/weir-dev/weir/internal/catalog"
)

// A hint says that the owner of a partition has something that others wait for: weir.h.sm-.N.WHAT. It is not kept: who waits
// listens before it asks, and asks again now and then, because hints may be lost.

// Hints are told and heard.
type Hints interface {
	Hint(k catalog.Key, what string, body []byte) error
	HearHints(ctx context.Context, what string, f func(partition string, body []byte)) (stop func(), err error)
}

const hintPrefix = "weir.h."

func hintSubject(k catalog.Key, what string) string {
	return hintPrefix + k.Namespace + "." + k.Name + "." + what
}

// Hint tells whoever listens, as the owner of partition k, that there is some of what: a token of a subject.
func (c *Conn) Hint(k catalog.Key, what string, body []byte) error {
	return c.nc.Publish(hintSubject(k, what), body)
}

// HearHints calls f with each hint at what, one after the other and with the name of its partition. When it returns, NATS knows of
// it. f must not block; after stop it may be called once more.
func (c *Conn) HearHints(ctx context.Context, what string, f func(partition string, body []byte)) (stop func(), err error) {
	ctx, cancel := c.bound(ctx, apiTimeout)
	defer cancel()
	const prefix = hintPrefix + machineNamespace + "."
	sub, err := c.nc.Subscribe(hintSubject(catalog.Key{Namespace: machineNamespace, Name: "*"}, what), func(m *nats.Msg) {
		partition, _, _ := strings.Cut(strings.TrimPrefix(m.Subject, prefix), ".")
		f(partition, m.Data)
	})
	if err == nil {
		if err = c.nc.FlushWithContext(ctx); err != nil {
			_ = sub.Unsubscribe() // it fails without a connection: then there is none
		}
	}
	if err != nil {
		return nil, fmt.Errorf("hints at %s: %w", what, c.apiError(ctx, err))
	}
	return func() { _ = sub.Unsubscribe() }, nil
}
