package table_test

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/weir-dev/weir/internal/jsontree"
	"github.com/weir-dev/weir/internal/table"
)

func TestKey(t *testing.T) {
	hash, both := table.Schema{Hash: "a"}, table.Schema{Hash: "a", Range: "b"}
	sum := `[0-9a-f]{64}`
	for _, c := range []struct {
		schema    table.Schema
		key, want string
	}{
		{hash, `{"a":{"S":"order-1/A_b"}}`, `S-order-1/A_b`},
		{hash, `{"a":{"S":"a b.c=é*>"}}`, `S-a=20b=2Ec=3D=C3=A9=2A=3E`},
		{hash, `{"a":{"S":"."}}`, `S-=2E`},
		{hash, `{"a":{"S":"1"}}`, `S-1`},
		{hash, `{"a":{"N":"1"}}`, `N-1`},
		{hash, `{"a":{"N":"1.0"}}`, `N-1`},
		{hash, `{"a":{"N":"1e0"}}`, `N-1`},
		{hash, `{"a":{"N":"-0.50"}}`, `N--0=2E5`},
		{hash, `{"a":{"N":"0e9"}}`, `N-0`},
		{hash, `{"a":{"B":"AGE="}}`, `B-=00a`},
		{both, `{"b":{"N":"2"},"a":{"S":"x"}}`, `S-x\.N-2`},
		{both, `{"a":{"S":"x.N-2"},"b":{"S":"y"}}`, `S-x=2EN-2\.S-y`},
		{hash, `{"a":{"S":"` + repeated('x', 94) + `"}}`, `S-x{94}`},
		{hash, `{"a":{"S":"` + repeated('x', 95) + `"}}`, `S=` + sum},
		{hash, `{"a":{"S":"` + repeated(' ', 2048) + `"}}`, `S=` + sum},
		{hash, `{"a":{"N":"1e125"}}`, `N=` + sum},
		{both, `{"a":{"S":"` + repeated('x', 2048) + `"},"b":{"S":"` + repeated('y', 1024) + `"}}`, `S=` + sum + `\.S=` + sum},
		{both, `{"a":{"S":"` + repeated('x', 94) + `"},"b":{"S":"` + repeated('y', 94) + `"}}`, `S-x{94}\.S-y{94}`},
	} {
		for _, op := range []table.Op{table.Get, table.Put, table.Update, table.Delete} {
			request := `{"TableName":"t","Key":` + c.key + `}`
			if op == table.Put {
				request = `{"TableName":"t","Item":` + strings.TrimSuffix(c.key, "}") + `,"more":{"NULL":true}}}`
			}
			r, err := table.Parse(op, tree(t, request))
			if err != nil {
				t.Fatal(err)
			}
			got, err := r.Key(c.schema)
			if err != nil || !regexp.MustCompile(`^`+c.want+`$`).MatchString(got) || len(got) > 200 {
				t.Errorf("%s %.80s: %s (%d), %v", op, c.key, got, len(got), err)
			}
		}
	}
}

func TestKeyMistakes(t *testing.T) {
	hash, both := table.Schema{Hash: "a"}, table.Schema{Hash: "a", Range: "b"}
	const (
		wrong = `The provided key element does not match the schema`
		value = `One or more parameter values are not valid. The AttributeValue for a key attribute cannot contain an empty `
	)
	for _, c := range []struct {
		schema        table.Schema
		key, get, put string
	}{
		{hash, `{}`, wrong, `One or more parameter values were invalid: Missing the key a in the item`},
		{hash, `{"b":{"S":"x"}}`, wrong, `One or more parameter values were invalid: Missing the key a in the item`},
		{both, `{"a":{"S":"x"}}`, wrong, `One or more parameter values were invalid: Missing the key b in the item`},
		{both, `{"a":{"S":"x"},"c":{"S":"x"}}`, wrong, `One or more parameter values were invalid: Missing the key b in the item`},
		{hash, `{"a":{"S":"x"},"b":{"S":"x"}}`, wrong, ``},
		{hash, `{"a":{"SS":["x"]}}`, wrong, `One or more parameter values were invalid: Type mismatch for key a expected: S, N or B actual: SS`},
		{hash, `{"a":{"M":{}}}`, wrong, `One or more parameter values were invalid: Type mismatch for key a expected: S, N or B actual: M`},
		{hash, `{"a":{"S":""}}`, value + `string value. Key: a`, value + `string value. Key: a`},
		{both, `{"a":{"S":"x"},"b":{"B":""}}`, value + `binary value. Key: b`, value + `binary value. Key: b`},
		{
			hash, `{"a":{"S":"` + repeated('x', 2049) + `"}}`,
			`One or more parameter values were invalid: Size of hashkey has exceeded the maximum size limit of2048 bytes`,
			`One or more parameter values were invalid: Size of hashkey has exceeded the maximum size limit of2048 bytes`,
		},
		{
			both, `{"a":{"S":"x"},"b":{"S":"` + repeated('x', 1025) + `"}}`,
			`One or more parameter values were invalid: Aggregated size of all range keys has exceeded the size limit of 1024 bytes`,
			`One or more parameter values were invalid: Aggregated size of all range keys has exceeded the size limit of 1024 bytes`,
		},
	} {
		for op, want := range map[table.Op]string{table.Get: c.get, table.Put: c.put} {
			member := "Key"
			if op == table.Put {
				member = "Item"
			}
			r, err := table.Parse(op, tree(t, `{"TableName":"t","`+member+`":`+c.key+`}`))
			if err != nil {
				t.Fatal(err)
			}
			key, err := r.Key(c.schema)
			if want == "" && err == nil {
				continue
			}
			wantError(t, string(op)+" "+c.key, err, want)
			if key != "" {
				t.Errorf("%s: %s", c.key, key)
			}
		}
	}
}

// FuzzKey: whatever the values are, keys that differ have texts that differ, and each text may stand in a subject of NATS. A
// text that is no hash is read as the value that it was made of.
func FuzzKey(f *testing.F) {
	f.Add("S", "a", "S", "b", "S", "a.b", "N", "1")
	f.Add("N", "1.0", "N", "1", "N", "10e-1", "N", "1e0")
	f.Add("B", "\xff.", "S", strings.Repeat("=", 100), "S", "S-x", "B", "\x00")
	valid := regexp.MustCompile(`^[SNB][-=][-/_=a-zA-Z0-9]*\.[SNB][-=][-/_=a-zA-Z0-9]*$`)
	f.Fuzz(func(t *testing.T, t1, v1, t2, v2, t3, v3, t4, v4 string) {
		a, identityA, ok := fuzzedKey(t, t1, v1, t2, v2)
		if !ok {
			return
		}
		if !valid.MatchString(a) || len(a) > 200 || strings.HasSuffix(a, ".") {
			t.Fatalf("%q of %s", a, identityA)
		}
		b, identityB, ok := fuzzedKey(t, t3, v3, t4, v4)
		if ok && (a == b) != (identityA == identityB) {
			t.Fatalf("%q of %s, and %q of %s", a, identityA, b, identityB)
		}
	})
}

// fuzzedKey is a key's text, and another text that says what it is.
func fuzzedKey(t *testing.T, t1, v1, t2, v2 string) (key, identity string, ok bool) {
	item := jsontree.NewObject(2)
	for _, a := range []struct{ name, typ, value string }{{"a", t1, v1}, {"b", t2, v2}} {
		if a.typ == "B" {
			a.value = base64.StdEncoding.EncodeToString([]byte(a.value))
		}
		if a.typ != "S" && a.typ != "N" && a.typ != "B" || !utf8.ValidString(a.value) {
			return "", "", false
		}
		item.Set(a.name, jsontree.Of(a.typ, a.value))
	}
	r, err := table.Parse(table.Put, jsontree.Of("TableName", "t", "Item", item))
	if err != nil {
		return "", "", false
	}
	key, err = r.Key(table.Schema{Hash: "a", Range: "b"})
	if err != nil {
		return "", "", false
	}
	stored, _, _, _ := r.Apply(nil)
	parts := strings.Split(key, ".")
	for i, name := range []string{"a", "b"} {
		v, _ := stored.Get(name)
		typ, content := v.(*jsontree.Object).At(0)
		s := content.(string)
		if typ == "B" {
			b, _ := base64.StdEncoding.DecodeString(s)
			s = string(b)
		}
		if rest, plain := strings.CutPrefix(parts[i], typ+"-"); plain && decoded(t, rest) != s {
			t.Fatalf("%q of %q", parts[i], s)
		}
		identity += fmt.Sprintf("%s %q ", typ, s)
	}
	return key, identity, true
}

func decoded(t *testing.T, s string) string {
	var b []byte
	for i := 0; i < len(s); i++ {
		if s[i] != '=' {
			b = append(b, s[i])
			continue
		}
		c, err := hex.DecodeString(s[i+1 : i+3])
		if err != nil {
			t.Fatal(err)
		}
		b = append(b, c...)
		i += 2
	}
	return string(b)
}
