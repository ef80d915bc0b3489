package taskapi

import (
	"testing"
	"time"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/sign"
)

func ring(t testing.TB) sign.Ring {
	r, _, err := sign.Ring{}.Rotate(time.Unix(1_800_000_000, 0))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestTokens: what was sealed is read; of another purpose, or with another ring's keys, it was never given.
func TestTokens(t *testing.T) {
	mine, other := ring(t), ring(t)
	for _, id := range []string{"m:x", "m:01890a5d-ac96-774b-bcce-b302099a8057", "m:01890A5D-AC96-774B-BCCE-B302099A8057", "m:=x", "ns/machine_1:äö", "a/b:" + "0123456789012345678901234567890123456789012345678901234567890123456789012345678é"} {
		parsed, err := ParseID(id)
		if err != nil {
			t.Fatal(id, err)
		}
		want := Task{parsed, 1_800_000_000_123, 1 << 31}
		token := Token(mine, want)
		if got, ok := ParseToken(mine, token); !ok || got != want {
			t.Errorf("%s: %+v, %t", id, got, ok)
		}
		if _, ok := ParseToken(other, token); ok {
			t.Error("another's token is taken")
		}
		if _, ok := ParseAddress(mine, token); ok {
			t.Error("a token is taken for an address")
		}
		if back, ok := IDOf(parsed.Key()); !ok || back != parsed {
			t.Errorf("%s: %+v", parsed.Key(), back)
		}
	}
	k := catalog.Key{Namespace: "ns", Name: "work"}
	address := Address(mine, time.Unix(1_800_000_000, 0), k)
	if got, ok := ParseAddress(mine, address); !ok || got != k {
		t.Errorf("%+v, %t", got, ok)
	}
	if _, ok := ParseAddress(other, address); ok {
		t.Error("another's address is taken")
	}
	if _, ok := ParseToken(mine, address); ok {
		t.Error("an address is taken for a token")
	}
	if Token(sign.Ring{}, Task{}) != "" || Address(sign.Ring{}, time.Now(), k) != "" {
		t.Error("something is given without keys")
	}
}

func TestParseActivity(t *testing.T) {
	for text, want := range map[string]catalog.Key{
		"work": {Namespace: "mine", Name: "work"}, "other/work": {Namespace: "other", Name: "work"},
		"arn:aws:states:eu-west-1:123:activity:work":     {Namespace: "mine", Name: "work"},
		"arn:weir:states::other:activity:work":           {Namespace: "other", Name: "work"},
		"arn:aws:states:eu-west-1:123:stateMachine:work": {}, "a.b": {}, "": {}, "/work": {}, "a/b/c": {}, "arn:weir:states:::activity:work": {},
	} {
		got, err := ParseActivity(text, "mine")
		if (err != nil) != (want == catalog.Key{}) || err == nil && got != want {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
}

func FuzzTokens(f *testing.F) {
	r := ring(f)
	f.Add(Token(r, Task{ID: ID{catalog.Key{Namespace: "default", Name: "m"}, "x"}, Began: 1, Call: 2}))
	f.Add(Address(r, time.Unix(1_800_000_000, 0), catalog.Key{Namespace: "default", Name: "a"}))
	f.Fuzz(func(t *testing.T, text string) {
		if task, ok := ParseToken(r, text); ok && Token(r, task) != text && task.Began > 0 {
			t.Errorf("%q is read as %+v, whose token is %q", text, task, Token(r, task))
		}
		_, _ = ParseAddress(r, text)
	})
}
