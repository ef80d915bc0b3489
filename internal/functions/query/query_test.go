package query_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"

	"github.com/weir-dev/weir/internal/functions/dbtest"
	"github.com/weir-dev/weir/internal/functions/query"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

// start returns the function with a table "stock" and no notes.
func start(t *testing.T, configure ...func(*query.Config)) *query.Function {
	t.Helper()
	db := dbtest.DB(t)
	conn := dbtest.Connect(t, db.DirectURL())
	if _, err := conn.Exec(t.Context(), `DROP TABLE IF EXISTS weir_calls, stock, lines, parts; CREATE TABLE parts (n int UNIQUE DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE stock (sku text PRIMARY KEY, n int NOT NULL CHECK (n >= 0)); INSERT INTO stock VALUES ('book', 3)`); err != nil {
		t.Fatal(err)
	}
	return open(t, db.PoolURL(), configure...)
}

func open(t *testing.T, address string, configure ...func(*query.Config)) *query.Function {
	t.Helper()
	file := dbtest.File(t, address)
	cfg, err := query.ConfigFromEnv(func(k string) string { return map[string]string{"DATABASE_URL_FILE": file}[k] })
	if err != nil {
		t.Fatal(err)
	}
	cfg.Log = slog.New(slog.DiscardHandler)
	for _, c := range configure {
		c(&cfg)
	}
	f, err := query.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	return f
}

func ask(ctx context.Context, f http.Handler, id, body string) *httptest.ResponseRecorder {
	res := httptest.NewRecorder()
	req := httptest.NewRequestWithContext(ctx, http.MethodPost, "/", strings.NewReader(body))
	req.Header.Set("Ce-Id", id)
	f.ServeHTTP(res, req)
	return res
}

// run makes a call of its own, and returns its status and its answer in a line.
func run(t *testing.T, f http.Handler, sql, more string) string {
	t.Helper()
	text, err := json.Marshal(sql)
	if err != nil {
		t.Fatal(err)
	}
	res := ask(t.Context(), f, uuid.NewString(), fmt.Sprintf(`{"ResourceArn": "query", "SecretArn": "x", "Sql": %s%s}`, text, more))
	return fmt.Sprint(res.Code, " ", res.Body)
}

// notes is how many calls are noted.
func notes(t *testing.T) int {
	t.Helper()
	return dbtest.One[int](t, dbtest.Connect(t, dbtest.DBRunning(t).DirectURL()), `SELECT count(*) FROM weir_calls`)
}

func stock(t *testing.T) int {
	t.Helper()
	return dbtest.One[int](t, dbtest.Connect(t, dbtest.DBRunning(t).DirectURL()), `SELECT n FROM stock WHERE sku = 'book'`)
}

func TestValues(t *testing.T) {
	f := start(t)
	for _, c := range []struct{ sql, more, want string }{
		{
			"SELECT true AS b, 1::int2 AS i, 9007199254740993 AS l, 1.5::float4 AS d, 12.50 AS n, 'a<ü' AS t, NULL AS z, '\\x00ff'::bytea AS y", "",
			`[[{"BooleanValue":true},{"LongValue":1},{"LongValue":9007199254740993},{"DoubleValue":1.5},{"StringValue":"12.50"},{"StringValue":"a<ü"},{"IsNull":true},{"BlobValue":"AP8="}]]}`,
		},
		{
			"SELECT '2026-01-02 03:04:05.25+02'::timestamptz, '2026-01-02'::date, '03:04'::time, '5b7e0a6e-0000-4000-8000-000000000001'::uuid, '{\"a\": 1}'::jsonb, 'NaN'::float8, ''::text", "",
			`[[{"StringValue":"2026-01-02 01:04:05.25"},{"StringValue":"2026-01-02"},{"StringValue":"03:04:00"},{"StringValue":"5b7e0a6e-0000-4000-8000-000000000001"},{"StringValue":"{\"a\": 1}"},{"DoubleValue":"NaN"},{"StringValue":""}]]}`,
		},
		{
			"SELECT '{1,2}'::int[], '{a,\"b,\"}'::text[], '{}'::text[], '{t}'::bool[], '{1.5}'::float8[], '{1.10}'::numeric[], '{2026-01-01}'::date[]", "",
			`[[{"ArrayValue":{"LongValues":[1,2]}},{"ArrayValue":{"StringValues":["a","b,"]}},{"ArrayValue":{"StringValues":[]}},{"ArrayValue":{"BooleanValues":[true]}},{"ArrayValue":{"DoubleValues":[1.5]}},{"ArrayValue":{"StringValues":["1.10"]}},{"ArrayValue":{"StringValues":["2026-01-01"]}}]]}`,
		},
		{"SELECT 7 AS l, 2.5 AS d, 3.0::numeric(2,0) AS i", `, "ResultSetOptions": {"LongReturnType": "STRING", "DecimalReturnType": "DOUBLE_OR_LONG"}`, `[[{"StringValue":"7"},{"DoubleValue":2.5},{"LongValue":3}]]}`},
		{"SELECT 1 AS a, 'x' AS b, NULL AS c, 2.50 AS d, '{1}'::int[] AS e UNION ALL SELECT 2, 'y', NULL, 1, NULL", `, "FormatRecordsAs": "JSON"`, `"FormattedRecords":"[{\"a\":1,\"b\":\"x\",\"c\":null,\"d\":2.50,\"e\":[1]},{\"a\":2,\"b\":\"y\",\"c\":null,\"d\":1,\"e\":null}]","GeneratedFields":[],"NumberOfRecordsUpdated":0}`},
		{"SELECT sku, n FROM stock WHERE n > 100", `, "IncludeResultMetadata": true`, `{"ColumnMetadata":[{"Label":"sku","Name":"sku","TypeName":"text"},{"Label":"n","Name":"n","TypeName":"int4"}],"GeneratedFields":[],"NumberOfRecordsUpdated":0,"Records":[]}`},
		{
			"SELECT :b AS b, :l AS l, :d AS d, :s AS s, :z::int AS z, :y AS y, :l AS again",
			`, "Parameters": [{"Name": "b", "Value": {"BooleanValue": true}}, {"Name": "l", "Value": {"LongValue": 9007199254740993}}, {"Name": "d", "Value": {"DoubleValue": 0.1}},
				{"Name": "s", "Value": {"StringValue": "'; DROP"}}, {"Name": "z", "Value": {"IsNull": true}}, {"Name": "y", "Value": {"BlobValue": "AP8="}}]`,
			`[[{"BooleanValue":true},{"LongValue":9007199254740993},{"DoubleValue":0.1},{"StringValue":"'; DROP"},{"IsNull":true},{"BlobValue":"AP8="},{"LongValue":9007199254740993}]]`,
		},
		{
			"SELECT pg_typeof(:a)::text, pg_typeof(:b)::text, pg_typeof(:c)::text, pg_typeof(:d)::text, pg_typeof(:e)::text, :f::text, pg_typeof(:g)::text",
			`, "Parameters": [{"Name": "a", "TypeHint": "UUID", "Value": {"StringValue": "5b7e0a6e-0000-4000-8000-000000000001"}}, {"Name": "b", "TypeHint": "DATE", "Value": {"StringValue": "2026-01-01"}},
				{"Name": "c", "TypeHint": "DECIMAL", "Value": {"StringValue": "1.5"}}, {"Name": "d", "TypeHint": "JSON", "Value": {"StringValue": "{}"}}, {"Name": "e", "TypeHint": "TIME", "Value": {"StringValue": "01:02:03"}},
				{"Name": "f", "TypeHint": "TIMESTAMP", "Value": {"StringValue": "2026-01-01 00:00:00"}}, {"Name": "g", "TypeHint": "DATE", "Value": {"IsNull": true}}]`,
			`[[{"StringValue":"uuid"},{"StringValue":"date"},{"StringValue":"numeric"},{"StringValue":"json"},{"StringValue":"time without time zone"},{"StringValue":"2026-01-01 00:00:00"},{"StringValue":"date"}]]`,
		},
		{
			"SELECT :t::text, :l = ANY(:ls), :ds::text, :bs::text", `, "Parameters": [{"Name": "t", "Value": {"ArrayValue": {"StringValues": ["a\"", "b\\,", ""]}}}, {"Name": "l", "Value": {"LongValue": 2}},
				{"Name": "ls", "Value": {"ArrayValue": {"LongValues": [1, 2]}}}, {"Name": "ds", "Value": {"ArrayValue": {"DoubleValues": [1.5]}}}, {"Name": "bs", "Value": {"ArrayValue": {"BooleanValues": []}}}]`,
			`[[{"StringValue":"{\"a\\\"\",\"b\\\\,\",\"\"}"},{"BooleanValue":true},{"StringValue":"{1.5}"},{"StringValue":"{}"}]]`,
		},
		{"UPDATE stock SET n = n + 1 WHERE sku = :sku RETURNING n", `, "Parameters": [{"Name": "sku", "Value": {"StringValue": "book"}}]`, `200 {"GeneratedFields":[],"NumberOfRecordsUpdated":1,"Records":[[{"LongValue":4}]]}`},
		{"UPDATE stock SET n = 3", "", `200 {"GeneratedFields":[],"NumberOfRecordsUpdated":1}`},
		{"CREATE TABLE lines (n int)", "", `200 {"GeneratedFields":[],"NumberOfRecordsUpdated":0}`},
		{"WITH new AS (INSERT INTO lines VALUES (1), (2) RETURNING n) SELECT count(*) FROM new", "", `[[{"LongValue":2}]]`},
		{"SHOW TimeZone", "", `[[{"StringValue":"UTC"}]]`},
	} {
		if got := run(t, f, c.sql, c.more); !strings.HasPrefix(got, "200 ") || !strings.Contains(got, c.want) {
			t.Errorf("%s: %s\nwant %s", c.sql, got, c.want)
		}
	}
	if n := notes(t); n != 4 {
		t.Errorf("%d calls are noted, of four that wrote", n)
	}
}

func TestRefusals(t *testing.T) {
	f := start(t)
	const bad, database, result = "400 RdsData.BadRequestException ", "400 RdsData.DatabaseErrorException ", "400 RdsData.UnsupportedResultException "
	for _, c := range []struct{ sql, more, want string }{
		{"", "", bad + "Sql is missing"},
		{"SELECT 1", `, "TransactionId": "t"`, bad + "TransactionId is not supported"},
		{"SELECT 1", `, "Schema": "s"`, bad + "Schema is not supported"},
		{"SELECT 1", `, "ContinueAfterTimeout": true`, bad + "ContinueAfterTimeout is not supported"},
		{"SELECT 1", `, "FormatRecordsAs": "XML"`, bad + "FormatRecordsAs is NONE or JSON"},
		{"SELECT 1", `, "ResultSetOptions": {"LongReturnType": "INT"}`, bad + "LongReturnType is"},
		{"SELECT 1", `, "ResultSetOptions": {"DecimalReturnType": "INT"}`, bad + "DecimalReturnType is"},
		{"SELECT 1", `, "Parametres": []`, bad + `the request is not ExecuteStatement's: json: unknown field "Parametres"`},
		{"SELECT 1", `, "Database": "other"`, `400 RdsData.DatabaseNotFoundException this function's database is "weir"`},
		{"SELECT '" + strings.Repeat("x", 64<<10) + "'", "", bad + "Sql has"},
		{"SELECT 1", `, "Parameters": [` + strings.Repeat("{},", 1000) + `{}]`, bad + "there are 1001 Parameters"},
		{"SELECT :a", "", bad + "Sql has :a, and there is no parameter"},
		{"SELECT $1", "", bad + "Sql: parameters are named"},
		{"SELECT 1", `, "Parameters": [{"Name": "a", "Value": {"LongValue": 1}}]`, bad + `parameter "a" is not in Sql`},
		{"SELECT :a", `, "Parameters": [{"Name": "a", "Value": {"LongValue": 1}}, {"Name": "a", "Value": {"LongValue": 1}}]`, bad + `parameter "a" is given twice`},
		{"SELECT :a", `, "Parameters": [{"Name": "a", "Value": {}}]`, bad + `parameter "a": it has 0 values`},
		{"SELECT :a", `, "Parameters": [{"Name": "a", "Value": {"LongValue": 1, "StringValue": "1"}}]`, bad + `parameter "a": it has 2 values`},
		{"SELECT :a", `, "Parameters": [{"Name": "a", "TypeHint": "INT", "Value": {"StringValue": "1"}}]`, bad + `parameter "a": TypeHint is`},
		{"SELECT :a", `, "Parameters": [{"Name": "a", "TypeHint": "DATE", "Value": {"LongValue": 1}}]`, bad + `parameter "a": TypeHint belongs`},
		{"SELECT :a", `, "Parameters": [{"Name": "a", "Value": {"ArrayValue": {"ArrayValues": []}}}]`, bad + `parameter "a": arrays of arrays`},
		{"SELECT :a", `, "Parameters": [{"Name": "a", "Value": {"StringValue": "\u0000"}}]`, bad + `parameter "a": PostgreSQL has no texts`},
		{"SELECT 1; SELECT 2", "", bad + "Multistatements aren't supported"},
		{"COMMIT", "", bad + `a statement can't begin with "COMMIT"`},
		{"SET search_path = x", "", bad + `a statement can't begin with "SET"`},
		{"SELECT * FROM missing", "", database + `ERROR: relation "missing" does not exist; SQLState: 42P01`},
		{"SELEC 1", "", bad + `a statement can't begin with "SELEC"`},
		{"SELECT 1 +", "", database + "ERROR: syntax error at end of input; SQLState: 42601"},
		{"UPDATE stock SET n = -1", "", database + `ERROR: new row for relation "stock" violates check constraint "stock_n_check"; Detail: Failing row contains (book, -1).; SQLState: 23514`},
		{"INSERT INTO stock VALUES ('book', 1)", "", database + "ERROR: duplicate key"},
		{"SELECT :a::date", `, "Parameters": [{"Name": "a", "Value": {"StringValue": "soon"}}]`, database + "ERROR: invalid input syntax for type date"},
		{"DO $$ BEGIN COMMIT; END $$", "", database + "ERROR: invalid transaction termination"},
		{"INSERT INTO parts VALUES (1), (1)", "", database + "ERROR: duplicate key"}, // with COMMIT
		{"SELECT 1/0", "", database + "ERROR: division by zero; SQLState: 22012"},
		{"SELECT '{{1},{2}}'::int[] AS a", "", result + `column "a": arrays of several dimensions`},
		{"SELECT '{1,NULL}'::int[] AS a", "", result + `column "a": an array of LongValues with a NULL`},
		{"SELECT 1 AS a, 2 AS a", `, "FormatRecordsAs": "JSON"`, result + `two columns are named "a"`},
		{"SELECT repeat('x', 300000)", "", result + "Database response exceeded size limit"},
		{"SELECT repeat('x', 2000000)", "", result + "Database response exceeded size limit"},
		{"SELECT repeat('x', 100), generate_series(1, 100000000)", "", result + "Database response exceeded size limit"},
		{"SELECT repeat('\"', 200000) AS a", `, "FormatRecordsAs": "JSON"`, result + "Database response exceeded size limit"},
		{"WITH gone AS (UPDATE stock SET n = 0 RETURNING 1) SELECT repeat('x', 300000) FROM gone", "", result + "Database response exceeded size limit"},
	} {
		got := run(t, f, c.sql, c.more)
		var said struct{ Error, Cause string }
		status, body, _ := strings.Cut(got, " ")
		if err := json.Unmarshal([]byte(body), &said); err != nil {
			t.Errorf("%.80s: %s: %v", c.sql, got, err)
		}
		if got := status + " " + said.Error + " " + said.Cause; !strings.HasPrefix(got, c.want) {
			t.Errorf("%.80s: %s, want %s", c.sql, got, c.want)
		}
	}
	if n, left := notes(t), stock(t); n != 0 || left != 3 {
		t.Errorf("%d calls that failed are noted, and %d are in stock", n, left)
	}
	if res := ask(t.Context(), f, "1", `{"Sql": "SELECT 1"}`); res.Code != 400 || !strings.Contains(res.Body.String(), "ce-id") {
		t.Errorf("a call without an id: %d %s", res.Code, res.Body)
	}
	if res := ask(t.Context(), f, uuid.NewString(), `[]`); res.Code != 400 {
		t.Errorf("no object: %d %s", res.Code, res.Body)
	}
	res := httptest.NewRecorder()
	f.ServeHTTP(res, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", http.NoBody))
	if res.Code != 405 || res.Header().Get("Allow") != "POST" {
		t.Errorf("GET: %d %v", res.Code, res.Header())
	}
}

// TestOnce: a call that is made again, at once or at the same time, changes something once, and has one answer.
func TestOnce(t *testing.T) {
	f := start(t)
	const sell = `{"Sql": "UPDATE stock SET n = n - 1 WHERE sku = 'book' RETURNING n"}`
	id := uuid.NewString()
	first := ask(t.Context(), f, id, sell)
	for range 3 {
		if again := ask(t.Context(), f, id, sell); again.Code != 200 || again.Body.String() != first.Body.String() {
			t.Errorf("again: %d %s, first %s", again.Code, again.Body, first.Body)
		}
	}
	if left := stock(t); left != 2 {
		t.Fatalf("%d are left after one sale of three", left)
	}
	// While the first attempt runs the second is told so, and holds no connection.
	hold := dbtest.Connect(t, dbtest.DBRunning(t).DirectURL())
	tx, err := hold.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `SELECT FROM stock FOR UPDATE`); err != nil {
		t.Fatal(err)
	}
	id = uuid.NewString()
	done := make(chan *httptest.ResponseRecorder, 1)
	var wg sync.WaitGroup
	wg.Go(func() { done <- ask(t.Context(), f, id, sell) })
	watch := dbtest.Connect(t, dbtest.DBRunning(t).DirectURL())
	dbtest.Eventually(t, func() error {
		if !dbtest.One[bool](t, watch, `SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)`) {
			return fmt.Errorf("the first attempt does not wait yet")
		}
		return nil
	})
	if res := ask(t.Context(), f, id, sell); res.Code != 409 || !strings.Contains(res.Body.String(), `"error":"Weir.CallInProgress"`) {
		t.Errorf("meanwhile: %d %v %s", res.Code, res.Header(), res.Body)
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	res, again := <-done, ask(t.Context(), f, id, sell)
	if res.Code != 200 || again.Body.String() != res.Body.String() || stock(t) != 1 {
		t.Errorf("then: %d %s, again %s, %d left", res.Code, res.Body, again.Body, stock(t))
	}
}

// TestOldNotes: each write removes some, so the table does not grow.
func TestOldNotes(t *testing.T) {
	f := start(t)
	if got := run(t, f, "UPDATE stock SET n = 1", ""); !strings.HasPrefix(got, "200") {
		t.Fatal(got)
	}
	conn := dbtest.Connect(t, dbtest.DBRunning(t).DirectURL())
	if _, err := conn.Exec(t.Context(), `INSERT INTO weir_calls SELECT gen_random_uuid(), '{}', now() - interval '8 days' FROM generate_series(1, 15)`); err != nil {
		t.Fatal(err)
	}
	for _, want := range []int{7, 3, 4} {
		if got := run(t, f, "UPDATE stock SET n = 2", ""); !strings.HasPrefix(got, "200") || notes(t) != want {
			t.Errorf("%s; %d notes, want %d", got, notes(t), want)
		}
	}
}

// TestSession: what a statement sets for its session is not there for the next.
func TestSession(t *testing.T) {
	f := start(t)
	super := dbtest.Connect(t, dbtest.DBRunning(t).SuperuserURL())
	if _, err := super.Exec(t.Context(), `DROP ROLE IF EXISTS porter; CREATE ROLE porter; GRANT porter TO weir`); err != nil {
		t.Fatal(err)
	}
	for range 2 * dbtest.PoolSize {
		if got := run(t, f, "SELECT current_setting('app.user', true) AS u, set_config('app.user', 'ada', false), set_config('search_path', 'nowhere', false)", ""); !strings.Contains(got, `[[{"IsNull":true}`) && !strings.Contains(got, `[[{"StringValue":""}`) {
			t.Fatal(got)
		}
		for _, sql := range []string{
			"CREATE TEMP TABLE mine AS SELECT 1 AS n", "SELECT pg_advisory_lock(42)", "SELECT set_config('role', 'porter', false)",
			"DO $$ BEGIN EXECUTE 'LISTEN news'; END $$",
		} {
			if got := run(t, f, sql, ""); !strings.HasPrefix(got, "200") {
				t.Fatal(sql, got)
			}
		}
		if got := run(t, f, "SELECT 1 / (n - n) FROM (SELECT 1 AS n, pg_advisory_lock(43)) AS one", ""); strings.HasPrefix(got, "200") {
			t.Fatal(got)
		}
		if got := run(t, f, "SELECT current_user = session_user AND current_user <> 'porter'", ""); !strings.Contains(got, `[[{"BooleanValue":true}]]`) {
			t.Fatal(got)
		}
		if got := run(t, f, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid IN (42, 43)", ""); !strings.Contains(got, `[[{"LongValue":0}]]`) {
			t.Fatal(got)
		}
	}
}

// TestFewRights: a role that may not make the table is told what it needs; one that only reads needs no more than to read it.
func TestFewRights(t *testing.T) {
	start(t)
	db := dbtest.DBRunning(t)
	super := dbtest.Connect(t, db.SuperuserURL())
	sql := func(text string) {
		t.Helper()
		if _, err := super.Exec(t.Context(), text); err != nil {
			t.Fatal(err)
		}
	}
	sql(`DROP ROLE IF EXISTS clerk; CREATE ROLE clerk LOGIN PASSWORD 'secret'`)
	t.Cleanup(func() {
		if _, err := super.Exec(context.Background(), `DROP TABLE IF EXISTS weir_calls; DROP OWNED BY clerk; DROP ROLE clerk`); err != nil {
			t.Error(err)
		}
	})
	u, err := url.Parse(db.DirectURL())
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword("clerk", "secret")
	f := open(t, u.String())
	has := func(statement, want string) {
		t.Helper()
		if got := run(t, f, statement, ""); !strings.Contains(got, want) {
			t.Errorf("%s: %s, want %s", statement, got, want)
		}
	}
	sql(`GRANT SELECT ON stock TO clerk`)
	has("SELECT n FROM stock", "the table weir_calls, in which calls are noted, is missing, and this role may not make it (permission denied for schema public). Whoever may does: CREATE TABLE")
	sql(`CREATE TABLE weir_calls (id uuid PRIMARY KEY, answer text NOT NULL, at timestamptz NOT NULL DEFAULT now())`)
	has("SELECT n FROM stock", "permission denied for table weir_calls")
	sql(`GRANT SELECT ON weir_calls TO clerk`)
	has("SELECT n FROM stock", `[[{"LongValue":3}]]`)
	has("UPDATE stock SET n = 2", "permission denied for table stock")
	sql(`GRANT INSERT, UPDATE, DELETE ON weir_calls TO clerk; GRANT UPDATE ON stock TO clerk`)
	has("UPDATE stock SET n = 2", `"NumberOfRecordsUpdated":1`)
}

func TestNotNow(t *testing.T) {
	f := start(t)
	if got := run(t, f, "SELECT 1", ""); !strings.HasPrefix(got, "200") {
		t.Fatal(got)
	}
	release := dbtest.FillPool(t)
	if got := run(t, f, "SELECT 1", ""); !strings.HasPrefix(got, "503") {
		t.Error("a full pool:", got)
	}
	release()
	if err := dbtest.DBRunning(t).StopPostgres(context.WithoutCancel(t.Context())); err != nil {
		t.Fatal(err)
	}
	if got := run(t, f, "UPDATE stock SET n = 1", ""); !strings.HasPrefix(got, "503") {
		t.Error("no database:", got)
	}
	if err := dbtest.DBRunning(t).StartPostgres(t.Context()); err != nil {
		t.Fatal(err)
	}
	dbtest.Eventually(t, func() error { // PgBouncer tries again after a moment
		if got := run(t, f, "UPDATE stock SET n = 1", ""); !strings.HasPrefix(got, "200") {
			return errors.New(got)
		}
		return nil
	})
}

// TestTimeout: a statement ends when its time is over, on the server too.
func TestTimeout(t *testing.T) {
	f := start(t, func(cfg *query.Config) { cfg.Database.StatementTimeout = 100e6 })
	if got := run(t, f, "SELECT pg_sleep(30)", ""); !strings.HasPrefix(got, `400 {"error":"RdsData.StatementTimeoutException"`) {
		t.Error(got)
	}
	if got := run(t, f, "SELECT 1", ""); !strings.HasPrefix(got, "200") {
		t.Error("after it:", got)
	}
}
