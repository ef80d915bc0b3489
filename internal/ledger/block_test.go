package ledger

import (
	"encoding/hex"
	"errors"
	"reflect"
	"testing"
	"time"
)

func sample() *block {
	return &block{
		writer: writerID{1, 2, 3}, number: 300, shown: 7,
		entries: []entry{{"-.a", Value{Header: "{}"}}, {"c.b", Value{Header: `{"status":"succeeded"}`, Body: []byte("body")}}},
	}
}

// TestBlockGolden holds the format of blocks that are stored.
func TestBlockGolden(t *testing.T) {
	const golden = "574c01cb80294b3cec01020300000000000000000000000000ac020702032d2e61027b7d0003632e62167b22737461747573223a22737563636565646564227d04626f6479"
	data, err := hex.DecodeString(golden)
	if err != nil {
		t.Fatal(err)
	}
	b, err := decode(data)
	if err != nil || !reflect.DeepEqual(b, sample()) {
		t.Errorf("the stored block is %+v, %v; one that is written now is %x", b, err, sample().encode())
	}
	again, err := decode(sample().encode())
	if err != nil || !reflect.DeepEqual(again, sample()) {
		t.Errorf("%+v, %v", again, err)
	}
}

// TestBlockWithTTL holds the format of blocks that have an entry which does not live for ever.
func TestBlockWithTTL(t *testing.T) {
	const golden = "574c02638510a340f03f01020300000000000000000000000000ac020702032d2e61027b7d000003632e62167b22737461747573223a22737563636565646564227d04626f647980f524"
	data, err := hex.DecodeString(golden)
	if err != nil {
		t.Fatal(err)
	}
	b, err := decode(data)
	if err != nil || !reflect.DeepEqual(b, mortalSample()) {
		t.Errorf("the stored block is %+v, %v; one that is written now is %x", b, err, mortalSample().encode())
	}
	again, err := decode(mortalSample().encode())
	if err != nil || !reflect.DeepEqual(again, mortalSample()) {
		t.Errorf("%+v, %v", again, err)
	}
}

func mortalSample() *block {
	b := sample()
	b.entries[1].TTL = 7 * 24 * time.Hour
	return b
}

func TestBlockDamaged(t *testing.T) {
	whole := mortalSample().encode()
	for i := range whole {
		bad := append([]byte(nil), whole...)
		bad[i] ^= 0x55
		if b, err := decode(bad); err == nil && !reflect.DeepEqual(b, mortalSample()) {
			t.Errorf("byte %d changed: %+v", i, b)
		}
		if _, err := decode(whole[:i]); !errors.Is(err, ErrUnknownBlock) {
			t.Errorf("%d bytes: %v", i, err)
		}
	}
}

func FuzzBlock(f *testing.F) {
	f.Add(sample().encode())
	f.Add(mortalSample().encode())
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := decode(data)
		if err != nil {
			return
		}
		again, err := decode(b.encode())
		if err != nil || !reflect.DeepEqual(again, b) {
			t.Errorf("%+v became %+v, %v", b, again, err)
		}
	})
}
