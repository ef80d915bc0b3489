package orchestrator

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/integration"
	"github.com/weir-dev/weir/internal/ledger"
	"github.com/weir-dev/weir/internal/statelang"
	"github.com/weir-dev/weir/internal/stream"
)

// machine is a definition, parsed.
type machine struct {
	hash   string // definitionKey
	text   []byte
	parsed *statelang.Machine
}

// registered is a machine as it is stored.
type registered struct {
	Type       statelang.Type  `json:"type"`
	Definition json.RawMessage `json:"definition"`
	Changed    time.Time       `json:"changed,omitzero"` // zero of a resource
}

// machines are the definitions in memory. Those of resources are in the catalog. What is put is kept in partition 0; each
// partition keeps those that its executions have begun with.
type machines struct {
	conn      Conn
	resources atomic.Pointer[map[catalog.Key]*catalog.Machine]

	mu     sync.Mutex
	byHash map[string]*machine // key: hash and type
	byName map[catalog.Key]named
}

type named struct {
	m     *machine
	until time.Time
}

const (
	// maxParsed bounds the definitions in memory; past it all are dropped.
	maxParsed = 1000
	// nameAge is how long a name's definition is believed: as long may it take until another process sees a change.
	nameAge = time.Second
)

func newMachines(conn Conn) *machines {
	return &machines{conn: conn, byHash: map[string]*machine{}, byName: map[catalog.Key]named{}}
}

func (s *machines) use(cat *catalog.Catalog) {
	resources := make(map[catalog.Key]*catalog.Machine, len(cat.Machines))
	for i := range cat.Machines {
		resources[cat.Machines[i].Key] = &cat.Machines[i]
	}
	s.resources.Store(&resources)
}

// listed are the machines of resources.
func (s *machines) listed() map[catalog.Key]*catalog.Machine {
	if known := s.resources.Load(); known != nil {
		return *known
	}
	return nil
}

// resource is the machine of a resource; nil if there is none.
func (s *machines) resource(k catalog.Key) *catalog.Machine { return s.listed()[k] }

// parsed is a definition that is in memory; nil if it is not.
func (s *machines) parsed(hash string, kind statelang.Type) *statelang.Machine {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m := s.byHash[string(kind)+hash]; m != nil {
		return m.parsed
	}
	return nil
}

// parse reads a definition, or finds it in memory. The error may be statelang.Problems.
func (s *machines) parse(text []byte, kind statelang.Type) (*machine, error) {
	hash := definitionKey(text)
	s.mu.Lock()
	known := s.byHash[string(kind)+hash]
	s.mu.Unlock()
	if known != nil {
		return known, nil
	}
	parsed, err := statelang.Parse(text, statelang.Options{Type: kind, Supports: integration.Supports})
	if err != nil {
		return nil, err
	}
	m := &machine{hash, text, parsed}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.byHash) >= maxParsed {
		clear(s.byHash)
	}
	s.byHash[string(kind)+hash] = m
	return m, nil
}

// named returns the machine of a name. If there is none it is a *stream.RefusedError.
func (s *machines) named(ctx context.Context, k catalog.Key) (*machine, error) {
	if r := s.resource(k); r != nil {
		m, err := s.parse(r.Definition, statelang.Type(r.Type))
		if err != nil {
			return nil, fmt.Errorf("state machine %s: %w", k, err)
		}
		return m, nil
	}
	s.mu.Lock()
	known, ok := s.byName[k]
	s.mu.Unlock()
	if ok && time.Now().Before(known.until) {
		return known.m, nil
	}
	r, err := s.look(ctx, k)
	if err != nil {
		return nil, err
	}
	m, err := s.parse(r.Definition, r.Type)
	if err != nil {
		return nil, fmt.Errorf("state machine %s: %w", k, err)
	}
	s.remember(k, m)
	return m, nil
}

func (s *machines) remember(k catalog.Key, m *machine) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.byName) >= maxParsed {
		clear(s.byName)
	}
	s.byName[k] = named{m, time.Now().Add(nameAge)}
}

// look reads a machine as it is stored.
func (s *machines) look(ctx context.Context, k catalog.Key) (r registered, err error) {
	if m := s.resource(k); m != nil {
		return registered{Type: statelang.Type(m.Type), Definition: m.Definition}, nil
	}
	state, err := s.conn.State(ctx, stream.MachinePartition(0), registryKey(k))
	if err != nil {
		return r, err
	}
	if state.Header == "" {
		return r, &stream.RefusedError{Code: CodeNoMachine, Message: fmt.Sprintf("there is no state machine %s", k)}
	}
	if err := json.Unmarshal(state.Body, &r); err != nil {
		return r, fmt.Errorf("%w: state machine %s: %w", errUnknown, k, err)
	}
	return r, nil
}

// put stores a machine, as the owner of partition 0.
func (p *partition) put(ctx context.Context, key string, r any) error {
	return p.putIf(ctx, key, r, func([]byte) error { return nil })
}

// putIf stores r unless may, which is given what is there already, has something against it.
func (p *partition) putIf(ctx context.Context, key string, r any, may func(before []byte) error) error {
	cell, err := p.owner.Hold(ctx, key)
	if err != nil {
		return p.failed(err)
	}
	defer p.owner.Release(cell)
	body, err := marshal(r)
	if err != nil {
		return err
	}
	before, err := p.valueOf(ctx, cell, key)
	if err != nil {
		return err
	}
	if before.Header != "" {
		if err := may(before.Body); err != nil {
			return err
		}
	}
	done := make(chan error, 1)
	pending := p.owner.Change(cell, func(now ledger.Value) (ledger.Value, error) {
		if (now.Header == "") != (before.Header == "") { // another was quicker
			return now, fmt.Errorf("%w: it has changed meanwhile", stream.ErrUnavailable)
		}
		return ledger.Value{Header: sealedHeader, Body: body}, nil
	})
	p.wg.Go(func() {
		err := pending.Wait()
		if err == nil {
			err = p.owner.Shown(p.ctx, cell) // who starts an execution looks it up
		}
		done <- err
	})
	return p.await(ctx, done)
}
