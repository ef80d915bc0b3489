package ledger

import (
	"encoding/hex"
	"errors"
	"reflect"
	"testing"
)

func sample() *block {
	return &block{
		writer: writerID{1, 2, 3}, number: 300, shown: 7,
		entries: []entry{{"-.a", Value{"{}", nil}}, {"c.b", Value{`{"status":"succeeded"}`, []byte("body")}}},
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

func TestBlockDamaged(t *testing.T) {
	whole := sample().encode()
	for i := range whole {
		bad := append([]byte(nil), whole...)
		bad[i] ^= 0x55
		if b, err := decode(bad); err == nil && !reflect.DeepEqual(b, sample()) {
			t.Errorf("byte %d changed: %+v", i, b)
		}
		if _, err := decode(whole[:i]); !errors.Is(err, ErrUnknownBlock) {
			t.Errorf("%d bytes: %v", i, err)
		}
	}
}

func FuzzBlock(f *testing.F) {
	f.Add(sample().encode())
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
