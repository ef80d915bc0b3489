package query

import (
	"strings"
	"testing"
)

func TestScan(t *testing.T) {
	for _, c := range []struct{ sql, want, names, first string }{
		{"SELECT :a, :b, :a", "SELECT $1, $2, $1", "a b", "SELECT"},
		{"select * from t where id=:id::uuid", "select * from t where id=$1::uuid", "id", "SELECT"},
		{"SELECT ':a', \":b\", 'it''s :c', :d", "SELECT ':a', \":b\", 'it''s :c', $1", "d", "SELECT"},
		{`SELECT E'\':a', e'\\', :b`, `SELECT E'\':a', e'\\', $1`, "b", "SELECT"},
		{"SELECT E'x'\n 'y\\':a', :b", "SELECT E'x'\n 'y\\':a', $1", "b", "SELECT"},
		{"SELECT E'x' AS \":y\", :b", "SELECT E'x' AS \":y\", $1", "b", "SELECT"},
		{`SELECT '\', :b, '`, `SELECT '\', $1, '`, "b", "SELECT"},
		{`SELECT name'\':b`, `SELECT name'\'$1`, "b", "SELECT"},
		{"DO $$ :a $$", "DO $$ :a $$", "", "DO"},
		{"DO $x$ :a $$ :b $x$; ", "DO $x$ :a $$ :b $x$; ", "", "DO"},
		{"SELECT a$b$c, :d", "SELECT a$b$c, $1", "d", "SELECT"},
		{"-- :a ; x\nSELECT :b -- :c", "-- :a ; x\nSELECT $1 -- :c", "b", "SELECT"},
		{"/* :a /* ; */ :b */ SELECT :c /* :d", "/* :a /* ; */ :b */ SELECT $1 /* :d", "c", "SELECT"},
		{"SELECT f(x := :x), a[1:2], a[1 : n]", "SELECT f(x := $1), a[1:2], a[1 : n]", "x", "SELECT"},
		{"(SELECT :ä_1)", "(SELECT $1)", "ä_1", "("},
		{"\n values (:a,:b)", "\n values ($1,$2)", "a b", "VALUES"},
		{"", "", "", ""},
		{"SELECT 'open :a", "SELECT 'open :a", "", "SELECT"},
		{"SELECT $$open :a", "SELECT $$open :a", "", "SELECT"},
		{"SELECT :", "SELECT :", "", "SELECT"},
	} {
		s, err := scan(c.sql)
		if err != nil || s.sql != c.want || strings.Join(s.names, " ") != c.names || s.first != c.first || s.several {
			t.Errorf("%q: %+v, %v", c.sql, s, err)
		}
	}
	for sql, want := range map[string]bool{"SELECT 1;": false, "SELECT 1; -- x": false, "SELECT 1;;": false, "SELECT ';' x": false, "SELECT 1; SELECT 2": true, "SELECT 1; :a": true} {
		if s, err := scan(sql); err != nil || s.several != want {
			t.Errorf("%q: several is %v, %v", sql, s.several, err)
		}
	}
	if _, err := scan("SELECT $1"); err == nil {
		t.Error("a numbered parameter was taken")
	}
}

// FuzzScan: what is no parameter stays as it is.
func FuzzScan(f *testing.F) {
	for _, seed := range []string{"SELECT :a::int, ':b' /* :c */ -- :d", "E'\\':x' $a$ :y $a$ :z", "a$b :c; x"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, sql string) {
		s, err := scan(sql)
		if err != nil {
			return
		}
		if len(s.names) == 0 && s.sql != sql {
			t.Fatalf("%q became %q", sql, s.sql)
		}
	})
}
