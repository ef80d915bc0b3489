package record

import (
	"bytes"
	"encoding/hex"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"
)

func codecs() map[string]Codec { return map[string]Codec{"none": None, "s2": S2, "zstd": Zstd} }

func genRecord() *rapid.Generator[Record] {
	text := rapid.StringN(0, 40, 60)
	when := rapid.Custom(func(t *rapid.T) time.Time { return time.Unix(0, rapid.Int64().Draw(t, "nanos")).UTC() })
	return rapid.Custom(func(t *rapid.T) Record {
		r := Record{
			Time: when.Draw(t, "time"), Source: text.Draw(t, "source"), ContentType: text.Draw(t, "type"),
			Attempts: rapid.IntRange(0, 1000).Draw(t, "attempts"), JSON: rapid.Bool().Draw(t, "json"), Job: rapid.Bool().Draw(t, "job"),
			Body: rapid.SliceOfN(rapid.Byte(), 0, 200).Draw(t, "body"),
		}
		copy(r.ID[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "id"))
		if rapid.Bool().Draw(t, "traced") {
			r.TraceParent, r.TraceState = "x"+text.Draw(t, "parent"), text.Draw(t, "state")
		}
		if rapid.Bool().Draw(t, "failed") {
			r.Failure = &Failure{Time: when.Draw(t, "at"), Status: rapid.IntRange(0, 999).Draw(t, "status"), Reason: text.Draw(t, "reason")}
		}
		r.Redrives = rapid.IntRange(0, 300).Draw(t, "redrives")
		r.Age = time.Duration(rapid.Int64Range(0, 1<<62).Draw(t, "age"))
		if rapid.Bool().Draw(t, "requested") {
			r.Request = Request{Method: text.Draw(t, "method"), Path: text.Draw(t, "path"), Query: text.Draw(t, "query")}
		}
		for range rapid.IntRange(0, 4).Draw(t, "attributes") {
			r.Attributes = append(r.Attributes, Attribute{text.Draw(t, "name"), text.Draw(t, "value")})
		}
		key := uint64(keyAge | required)
		for range rapid.IntRange(0, 2).Draw(t, "extensions of a later version") {
			key += 2 * rapid.Uint64Range(1, 1000).Draw(t, "number") &^ required
			key &^= required
			r.unknown = append(r.unknown, extension{key, rapid.SliceOfN(rapid.Byte(), 1, 20).Draw(t, "data")})
		}
		if rapid.Bool().Draw(t, "uploaded") {
			r.Input = &Input{Object: text.Draw(t, "object"), Size: rapid.Int64Range(0, 1<<62).Draw(t, "size"), ETag: text.Draw(t, "etag")}
		}
		if rapid.Bool().Draw(t, "of a client") {
			copy(r.Client[:], rapid.SliceOfN(rapid.Byte(), len(r.Client), len(r.Client)).Draw(t, "client"))
		}
		return r
	})
}

func TestBlocksDecodeToWhatWasAppended(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.SliceOfN(genRecord(), 0, 30).Draw(t, "records")
		for name, codec := range codecs() {
			var b Builder
			for i := range want {
				if err := b.Append(&want[i]); err != nil {
					t.Fatal(err)
				}
			}
			got, err := Decode(b.AppendBlock(nil, codec))
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if len(got) != len(want) {
				t.Fatalf("%s: %d records, want %d", name, len(got), len(want))
			}
			for i := range got {
				if len(got[i].Body) == 0 {
					got[i].Body = want[i].Body // nil and empty are the same
				}
				if !reflect.DeepEqual(got[i], want[i]) {
					t.Fatalf("%s: record %d is %+v, want %+v", name, i, got[i], want[i])
				}
			}
		}
	})
}

// TestBlockGolden holds the format: a block that was written once stays readable as long as the package says.
func TestBlockGolden(t *testing.T) {
	id, at := uuid.MustParse("01890a5d-ac96-774b-bcce-b302099a8057"), time.Unix(0, 1688888888888888320).UTC()
	failure := &Failure{Time: at.Add(1), Status: 500, Reason: "no"}
	for golden, want := range map[string]Record{
		// Format 1, which had the time of the last redrive and nothing of the request.
		"57420100014739d9f0cd0f01890a5dac96774bbcceb302099a80571770237f0f538c0002032f61700a746578742f706c61696e" +
			"023030023d311770237f0f538c01f403026e6f1770237f0f538c02026869": {
			ID: id, Time: at, Attempts: 2, Source: "/ap", ContentType: "text/plain", TraceParent: "00", TraceState: "=1", JSON: true, Body: []byte("hi"),
			Failure: failure, Redrives: 1,
		},
		"5742010001421a3e03627001890a5dac96774bbcceb302099a80571770237f0f538c0000032f61700a746578742f706c61696e03752d3180808080040261620102030405060708090a0b0c00": {
			ID: id, Time: at, Source: "/ap", ContentType: "text/plain", Job: true, Input: &Input{Object: "u-1", Size: 1 << 30, ETag: "ab"},
			Client: Client{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12},
		},
		"5742020001787e5797570101890a5dac96774bbcceb302099a80571770237f0f538c0002032f61700a746578742f706c61696e070206023030023d31040d1770237f0f538c01f403026e6f0602ac020c0f03505554062f612532306203783d310e120674656e616e74027431046c616e67026465100680b09dc2df0140013f026869": {
			ID: id, Time: at, Attempts: 2, Source: "/ap", ContentType: "text/plain", TraceParent: "00", TraceState: "=1", JSON: true, Body: []byte("hi"),
			Failure: failure, Redrives: 300, Request: Request{Method: "PUT", Path: "/a%20b", Query: "x=1"},
			Attributes: []Attribute{{"tenant", "t1"}, {"lang", "de"}}, Age: time.Minute, unknown: []extension{{32 << 1, []byte("?")}},
		},
		"574202000147e9a5cdad0201890a5dac96774bbcceb302099a80571770237f0f538c0000032f61700a746578742f706c61696e02090c03752d3180808080040261620b0c0102030405060708090a0b0c00": {
			ID: id, Time: at, Source: "/ap", ContentType: "text/plain", Job: true, Input: &Input{Object: "u-1", Size: 1 << 30, ETag: "ab"},
			Client: Client{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12},
		},
	} {
		if golden[4:6] != "01" {
			var b Builder
			if err := b.Append(&want); err != nil {
				t.Fatal(err)
			}
			if got := hex.EncodeToString(b.AppendBlock(nil, None)); got != golden {
				t.Errorf("the block is written as\n%s, want\n%s", got, golden)
			}
		}
		data, err := hex.DecodeString(golden)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Decode(data)
		if len(got) == 1 && len(got[0].Body) == 0 {
			got[0].Body = nil
		}
		if err != nil || len(got) != 1 || !reflect.DeepEqual(got[0], want) {
			t.Errorf("the golden block reads as %+v (%v)", got, err)
		}
	}
}

func TestCorruptBlocksAreRefused(t *testing.T) {
	var b Builder
	for _, body := range []string{"one", "two", strings.Repeat("three", 50)} {
		if err := b.Append(&Record{Body: []byte(body), Source: "s"}); err != nil {
			t.Fatal(err)
		}
	}
	for name, codec := range codecs() {
		block := b.AppendBlock(nil, codec)
		for i := range block {
			for _, flip := range []byte{1, 0x80, 0xff} {
				bad := bytes.Clone(block)
				bad[i] ^= flip
				// A change may be invisible only where the compressor has no use for the bit; what is
				// read must then be the same.
				if rs, err := Decode(bad); err == nil && (len(rs) != 3 || string(rs[0].Body) != "one") {
					t.Errorf("%s: byte %d ^ %#x reads as %d records", name, i, flip, len(rs))
				} else if err != nil && !errors.Is(err, ErrCorrupt) && (!errors.Is(err, ErrUnsupported) || i != 2 && i != 3) {
					t.Errorf("%s: byte %d: %v is no ErrCorrupt", name, i, err)
				}
			}
			if _, err := Decode(block[:i]); !errors.Is(err, ErrCorrupt) {
				t.Errorf("%s: cut at %d: %v", name, i, err)
			}
		}
	}
}

func TestBlocksAreBounded(t *testing.T) {
	big := Record{Body: make([]byte, MaxRecordBytes)}
	var b Builder
	if err := b.Append(&big); !errors.Is(err, ErrTooLarge) {
		t.Errorf("got %v, want ErrTooLarge", err)
	}
	rs := make([]Record, MaxBlockRecords+10)
	for i := range rs {
		rs[i].Body = bytes.Repeat([]byte{byte(i)}, 2000)
	}
	rs = append(rs, Record{Body: make([]byte, MaxRecordBytes-1000)})
	blocks, err := Encode(rs, None)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, block := range blocks {
		if len(block) > MaxBlockBytes {
			t.Errorf("a block of %d bytes", len(block))
		}
		got, err := Decode(block)
		if err != nil || len(got) > MaxBlockRecords {
			t.Fatalf("%d records, %v", len(got), err)
		}
		n += len(got)
	}
	if n != len(rs) || len(blocks) < 3 {
		t.Errorf("%d of %d records in %d blocks", n, len(rs), len(blocks))
	}
	// A header that asks for a large payload must not make the decoder allocate it.
	for _, codec := range codecs() {
		bomb := append([]byte{'W', 'B', format, byte(codec)}, 1, 0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0, 0, 0)
		if _, err := Decode(bomb); !errors.Is(err, ErrCorrupt) {
			t.Errorf("codec %d: %v", codec, err)
		}
	}
}

func TestIDs(t *testing.T) {
	a, b := IDFromKey("/apis/default/shop/create", "k"), IDFromKey("/apis/default/shop/create", "k")
	if a != b || a.Version() != 8 || a.Variant() != uuid.RFC4122 {
		t.Errorf("%s (version %d), then %s", a, a.Version(), b)
	}
	for _, other := range [][2]string{{"/apis/default/shop/creat", "ek"}, {"/apis/default/shop/create", "K"}} {
		if IDFromKey(other[0], other[1]) == a {
			t.Errorf("%q gives the same id", other)
		}
	}
	first, err1 := NewID()
	second, err2 := NewID()
	if err1 != nil || err2 != nil || first.Version() != 7 || first.String() >= second.String() {
		t.Errorf("%s then %s", first, second)
	}
	if got, err := ParseID(first.String()); got != first || err != nil {
		t.Error(got, err)
	}
	for _, bad := range []string{"", "x", "urn:uuid:" + first.String(), "{" + first.String() + "}", strings.Repeat("z", 36)} {
		if _, err := ParseID(bad); err == nil {
			t.Errorf("%q is taken for an id", bad)
		}
	}
}

func FuzzDecode(f *testing.F) {
	var b Builder
	_ = b.Append(&Record{Body: []byte("hi"), Source: "/a", Failure: &Failure{Reason: "no"}, TraceParent: "x", Redrives: 1})
	_ = b.Append(&Record{Request: Request{Method: "PUT", Path: "/a", Query: "b"}, Attributes: []Attribute{{"c", "d"}}, Age: 1, Client: Client{1}, unknown: []extension{{64, []byte("e")}}})
	_ = b.Append(&Record{Body: []byte("ho"), Source: "/a", JSON: true})
	for _, codec := range codecs() {
		f.Add(b.AppendBlock(nil, codec))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		rs, err := Decode(data)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrUnsupported) {
				t.Fatalf("%v is neither ErrCorrupt nor ErrUnsupported", err)
			}
			return
		}
		// What was read can be written and reads the same.
		var again Builder
		for i := range rs {
			if err := again.Append(&rs[i]); errors.Is(err, ErrTooLarge) {
				return
			}
		}
		got, err := Decode(again.AppendBlock(nil, None))
		if err != nil || len(got) != len(rs) {
			t.Fatalf("written again: %d records, %v; want %d", len(got), err, len(rs))
		}
		for i := range rs {
			want := rs[i]
			if want.Failure != nil && len(want.Failure.Reason) > MaxReasonBytes {
				want.Failure.Reason = want.Failure.Reason[:MaxReasonBytes]
			}
			if want.TraceParent == "" {
				want.TraceState = "" // stored with its parent only
			}
			if got[i].ID != want.ID || !bytes.Equal(got[i].Body, want.Body) || got[i].Attempts != want.Attempts || got[i].TraceState != want.TraceState {
				t.Fatalf("record %d: %+v, want %+v", i, got[i], want)
			}
		}
	})
}

func BenchmarkBlock(b *testing.B) {
	body := []byte(`{"sku":"SKU-000123","quantity":3,"customer":"customer-4711","note":"` + strings.Repeat("please ring twice ", 50) + `"}`)
	for name, codec := range codecs() {
		b.Run("encode/"+name, func(b *testing.B) {
			var builder Builder
			var block []byte
			b.ReportAllocs()
			for b.Loop() {
				builder.Reset()
				for range 100 {
					_ = builder.Append(&Record{Body: body, Source: "/apis/default/shop/create-order", ContentType: "application/json"})
				}
				block = builder.AppendBlock(block[:0], codec)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/100, "ns/record")
		})
	}
}
