package orchestrator

import (
	"container/heap"
	"encoding/base64"
	"encoding/binary"
	"strings"
	"time"
)

// timers are the times that executions wait for, one for each. Millions may wait: what is kept of one is some 70 bytes without a
// pointer, which the garbage collector need not look through.
type timers struct {
	heap   agenda[timer]
	places map[short]int32 // in the heap

	machines map[string]uint32 // what keys have before the name of an execution, and its number
	texts    []string          // by that number
	longs    map[string]uint32 // keys whose name is no UUID, and the number that stands for the name
	names    map[uint32]string // by that number
	last     uint32            // that was given
}

type timer struct {
	at  int64 // Unix milliseconds
	key short
}

// short is an execution's key: the number of its machine, and the bytes of a UUID or, with longName, the number of another name.
type short struct {
	machine uint32
	name    [16]byte
}

const longName = 1 << 31

func newTimers() *timers {
	t := &timers{places: map[short]int32{}, machines: map[string]uint32{}, longs: map[string]uint32{}, names: map[uint32]string{}}
	t.heap = agenda[timer]{moment: func(one timer) int64 { return one.at }, moved: func(one timer, place int) { t.places[one.key] = int32(place) }}
	return t
}

// shorten finds a key's short form; ok is false if it has none, which give prevents.
func (t *timers) shorten(key string, give bool) (s short, ok bool) {
	dot := strings.LastIndexByte(key, '.') + 1
	number, known := t.machines[key[:dot]]
	if !known {
		if !give {
			return s, false
		}
		number = uint32(len(t.texts))
		t.machines[key[:dot]], t.texts = number, append(t.texts, key[:dot])
	}
	s.machine = number
	if coded, isUUID := strings.CutPrefix(key[dot:], "="); isUUID && len(coded) == base64.RawURLEncoding.EncodedLen(len(s.name)) {
		if _, err := base64.RawURLEncoding.Strict().Decode(s.name[:], []byte(coded)); err == nil {
			return s, true
		}
	}
	n, known := t.longs[key]
	if !known {
		if !give {
			return s, false
		}
		for t.last++; t.names[t.last] != ""; t.last++ { // it has gone round
		}
		n = t.last
		t.longs[key], t.names[n] = n, key[dot:]
	}
	s.machine, s.name = number|longName, [16]byte{}
	binary.BigEndian.PutUint32(s.name[:], n)
	return s, true
}

// key is what shorten was given.
func (t *timers) key(s short) string {
	text := t.texts[s.machine&^longName]
	if s.machine&longName != 0 {
		return text + t.names[binary.BigEndian.Uint32(s.name[:])]
	}
	return text + "=" + base64.RawURLEncoding.EncodeToString(s.name[:])
}

// remove takes out the one of a place, and returns its key.
func (t *timers) remove(place int) string {
	s := heap.Remove(&t.heap, place).(timer).key //nolint:forcetypeassert // nothing else is in it
	key := t.key(s)
	delete(t.places, s)
	if s.machine&longName != 0 {
		delete(t.longs, key)
		delete(t.names, binary.BigEndian.Uint32(s.name[:]))
	}
	return key
}

func (t *timers) len() int { return len(t.heap.all) }

// has reports whether an execution waits for a time.
func (t *timers) has(key string) bool {
	s, ok := t.shorten(key, false)
	if ok {
		_, ok = t.places[s]
	}
	return ok
}

// set changes an execution's time; zero is none. It reports whether the first of all is another now.
func (t *timers) set(key string, at time.Time) (first bool) {
	s, ok := t.shorten(key, !at.IsZero())
	if !ok {
		return false
	}
	place, known := t.places[s]
	switch {
	case at.IsZero() && known:
		t.remove(int(place))
		return false
	case at.IsZero():
		return false
	case known:
		t.heap.all[place].at = at.UnixMilli()
		heap.Fix(&t.heap, int(place))
	default:
		heap.Push(&t.heap, timer{at.UnixMilli(), s})
	}
	return t.heap.all[0].key == s
}

// due takes out those whose time has come, at most so many, and returns when the next comes.
func (t *timers) due(now time.Time, most int) (keys []string, next time.Time) {
	for t.len() > 0 && len(keys) < most {
		if at := time.UnixMilli(t.heap.all[0].at); at.After(now) {
			return keys, at
		}
		keys = append(keys, t.remove(0))
	}
	return keys, now.Add(time.Hour)
}
