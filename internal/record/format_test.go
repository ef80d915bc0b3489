package record_test

import (
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/weir-dev/weir/internal/record"
	"github.com/weir-dev/weir/test/compat/block1"
)

// TestFormatMatrix: the version before and this one, each with the blocks of the other.
func TestFormatMatrix(t *testing.T) {
	id, at := uuid.MustParse("01890a5d-ac96-774b-bcce-b302099a8057"), time.Unix(1700000000, 5).UTC()
	old := []block1.Record{
		{
			ID: id, Time: at, Source: "/s", ContentType: "application/json", JSON: true, Attempts: 3, TraceParent: "tp", TraceState: "ts", Body: []byte("{}"),
			Failure: &block1.Failure{Time: at, Status: 500, Reason: "no"}, Redriven: at,
		},
		{ID: id, Time: at, Source: "/s", Job: true, Input: &block1.Input{Object: "o", Size: 7, ETag: "e"}, Client: block1.Client{9}, Body: []byte{}},
	}
	want := []record.Record{
		{
			ID: id, Time: at, Source: "/s", ContentType: "application/json", JSON: true, Attempts: 3, TraceParent: "tp", TraceState: "ts", Body: []byte("{}"),
			Failure: &record.Failure{Time: at, Status: 500, Reason: "no"}, Redrives: 1,
		},
		{ID: id, Time: at, Source: "/s", Job: true, Input: &record.Input{Object: "o", Size: 7, ETag: "e"}, Client: record.Client{9}, Body: []byte{}},
	}
	for _, codec := range []block1.Codec{block1.None, block1.S2, block1.Zstd} {
		blocks, err := block1.Encode(old, codec)
		if err != nil || len(blocks) != 1 {
			t.Fatal(len(blocks), err)
		}
		got, err := record.Decode(blocks[0])
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: the version before has written %+v; this one reads %+v (%v)", codec, old, got, err)
		}
		again, err := record.Encode(got, record.Codec(codec))
		if err != nil {
			t.Fatal(err)
		}
		if back, err := record.Decode(again[0]); err != nil || !reflect.DeepEqual(back, want) {
			t.Errorf("%s: written again it reads %+v (%v)", codec, back, err)
		}
		// The version before doesn't know of later versions. It misreads nothing, and takes it for corrupt: it was never
		// released, so none of its dispatchers is there during an update.
		if rs, err := block1.Decode(again[0]); !errors.Is(err, block1.ErrCorrupt) {
			t.Errorf("%s: the version before reads this one's block as %+v (%v)", codec, rs, err)
		}
	}
}
