package orderwriter

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/weir-dev/weir/function"
	"github.com/weir-dev/weir/internal/functions/dbtest"
)

// Random orders of awkward text: what becomes a row PostgreSQL holds, reads and casts; what is
// refused for its text it would have refused too, sooner or later.
func TestRowsAreWhatPostgreSQLHolds(t *testing.T) {
	conn := dbtest.Connect(t, dbtest.DB(t).DirectURL())
	piece := rapid.SampledFrom([]string{
		"a", "é", "😀", `\\`, `\"`, `\n`, `\/`, `\u0000`, `\u0001`, `\u00e9`, `\uD83D`, `\ude00`, `\ud83d\ude00`, `\uFFFF`, "u0000", "\xff", "\xed\xa0\x80", "\u2028",
	})
	text := rapid.Custom(func(t *rapid.T) string { return strings.Join(rapid.SliceOfN(piece, 0, 6).Draw(t, "pieces"), "") })
	rapid.Check(t, func(r *rapid.T) {
		order := `{"sku":"A` + text.Draw(r, "sku") + `","customer":"` + text.Draw(r, "customer") + `","` + text.Draw(r, "name") + `x":["` + text.Draw(r, "value") + `"]}`
		got, err := newRow(&function.Event{ID: "0192f3a0-6e1c-7cc0-8d5b-2f1b7f0b7a11", Data: []byte(order)}, time.Now())
		if !json.Valid([]byte(order)) {
			if err == nil {
				r.Fatalf("%q is no JSON and became a row", order)
			}
			return
		}
		var sku, customer string
		dbErr := conn.QueryRow(t.Context(), `SELECT $1::json::jsonb->>'sku', $1::json->>'customer'`, order).Scan(&sku, &customer)
		if (err == nil) != (dbErr == nil) {
			r.Fatalf("%q: a row: %v, PostgreSQL: %v", order, err, dbErr)
		}
		if err == nil && (got.sku != sku || got.customer.String != customer || !got.customer.Valid) {
			r.Fatalf("%q: %+v, PostgreSQL reads %q %q", order, got, sku, customer)
		}
	})
}

func FuzzNewRow(f *testing.F) {
	for _, s := range []string{`{"sku":"A"}`, `{"sku":"A\u0000"}`, `{"sku":"A","x":"\ud800\u`, `{"sku":1,"quantity":1e1}`, `{"sku":"\\`, `{"customer":null,"sku":"A","quantity":-2147483648}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := newRow(&function.Event{ID: "0192f3a0-6e1c-7cc0-8d5b-2f1b7f0b7a11", Data: data}, time.Now())
		if err == nil && (!json.Valid(data) || r.sku == "" || strings.ContainsRune(r.sku+r.customer.String, 0)) {
			t.Fatalf("%q became %+v", data, r)
		}
	})
}
