package orchestrator_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/weir-dev/weir/internal/blob"
	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/egress"
	"github.com/weir-dev/weir/internal/orchestrator"
	"github.com/weir-dev/weir/internal/sign"
	"github.com/weir-dev/weir/internal/testkit"
)

// task is a machine of one task.
func task(resource, parameters string) string {
	return fmt.Sprintf(`{"StartAt": "T", "States": {"T": {"Type": "Task", "Resource": %q, "Parameters": %s, "End": true}}}`, resource, parameters)
}

// run runs a machine once, and returns its outcome in a line.
func (r *replica) run(name, definition, input string) string {
	r.t.Helper()
	r.put(name, definition)
	return r.end(r.begin(name, "", input))
}

func TestTables(t *testing.T) {
	w := newWorld(t)
	r := w.start("a")
	const sdk, own = "arn:aws:states:::aws-sdk:dynamodb:", "arn:aws:states:::dynamodb:"
	for _, c := range []struct{ name, resource, parameters, want string }{
		{"none", sdk + "getItem", `{"TableName": "orders", "Key": {"id": {"S": "1"}}}`, "FAILED DynamoDb.ResourceNotFoundException Requested resource not found (Service: DynamoDb"},
		{"table", "", "", ""},
		{"put", sdk + "putItem", `{"TableName": "orders", "Item": {"id": {"S": "1"}, "n": {"N": "01"}}}`, `{}`},
		{"get", sdk + "getItem", `{"TableName": "orders", "Key": {"id": {"S": "1"}}}`, `{"Item":{"id":{"S":"1"},"n":{"N":"1"}}}`},
		{"get2", own + "getItem", `{"TableName": "orders", "Key": {"id": {"S": "1"}}}`, `"HttpStatusCode":200`},
		{"add", own + "updateItem", `{"TableName": "orders", "Key": {"id": {"S": "1"}}, "UpdateExpression": "ADD n :two", "ExpressionAttributeValues": {":two": {"N": "2"}}, "ReturnValues": "UPDATED_NEW"}`, `"Attributes":{"n":{"N":"3"}}`},
		{"once", own + "putItem", `{"TableName": "orders", "Item": {"id": {"S": "1"}}, "ConditionExpression": "attribute_not_exists(id)"}`, "FAILED DynamoDB.ConditionalCheckFailedException"},
		{"bad", sdk + "putItem", `{"TableName": "orders", "Item": null}`, "FAILED DynamoDb.DynamoDbException 1 validation error detected: Value null at 'item' failed to satisfy constraint: Member must not be null (Service: DynamoDb, Status Code: 400"},
		{"keyless", sdk + "putItem", `{"TableName": "orders", "Item": {"n": {"N": "1"}}}`, "FAILED DynamoDb.DynamoDbException"},
		{"delete", sdk + "deleteItem", `{"TableName": "orders", "Key": {"id": {"S": "1"}}, "ReturnValues": "ALL_OLD"}`, `{"Attributes":{"id":{"S":"1"},"n":{"N":"3"}}}`},
		{"gone", sdk + "getItem", `{"TableName": "orders", "Key": {"id": {"S": "1"}}}`, `{}`},
		{"again", sdk + "putItem", `{"TableName": "orders", "Item": {"id": {"S": "1"}}, "ConditionExpression": "attribute_not_exists(id)"}`, `{}`},
	} {
		if c.name == "table" {
			if status, answer := r.request(http.MethodPut, "/tables/orders", map[string]any{"key": "id"}); status != http.StatusOK {
				t.Fatal(status, answer)
			}
			if status, _ := r.request(http.MethodPut, "/tables/orders", map[string]any{"key": "customer+id"}); status != http.StatusConflict {
				t.Errorf("a table's key was changed: %d", status)
			}
			continue
		}
		if got := r.run(c.name, task(c.resource, c.parameters), "{}"); !strings.Contains(got, c.want) {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

// TestTablesUnderWay: executions that count up one item at the same time, while its owner changes, count each once.
func TestTablesUnderWay(t *testing.T) {
	w := newWorld(t)
	r := w.start("a")
	if status, answer := r.request(http.MethodPut, "/tables/counters", map[string]any{"key": "id"}); status != http.StatusOK {
		t.Fatal(status, answer)
	}
	r.put("count", task("arn:aws:states:::dynamodb:updateItem", `{"TableName": "counters", "Key": {"id": {"S": "c"}}, "UpdateExpression": "ADD n :one", "ExpressionAttributeValues": {":one": {"N": "1"}}}`))
	ids := make([]string, 60)
	for i := range ids {
		ids[i] = r.begin("count", fmt.Sprint(i), "{}")
		if i == 30 {
			r.stop()
			r = w.start("b")
		}
	}
	for _, id := range ids {
		if got := r.end(id); strings.HasPrefix(got, "FAILED") {
			t.Errorf("%s: %s", id, got)
		}
	}
	got := r.run("read", task("arn:aws:states:::aws-sdk:dynamodb:getItem", `{"TableName": "counters", "Key": {"id": {"S": "c"}}}`), "{}")
	if want := `{"Item":{"id":{"S":"c"},"n":{"N":"60"}}}`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// withObjects starts an orchestrator that knows a queue with objects.
func (w *world) withObjects(owner string) *replica {
	w.t.Helper()
	conn := testkit.Conn(w.t, w.nats)
	q := catalog.Queue{
		Key: catalog.Key{Namespace: "default", Name: "files"}, MaxAge: time.Hour, MaxBytes: 16 << 20, DeadLetterMaxAge: time.Hour, Jobs: true,
		Results: catalog.Results{MaxAge: time.Hour, MaxBytes: 16 << 20}, Objects: catalog.Objects{MaxAge: time.Hour, MaxBytes: 32 << 20},
	}
	if err := conn.EnsureQueue(w.t.Context(), q, 1); err != nil {
		w.t.Fatal(err)
	}
	store := blob.NewNATS(conn, func() sign.Ring { return w.ring }, time.Now, "")
	return w.startKnowing(owner, &catalog.Catalog{Queues: []catalog.Queue{q}}, func(cfg *orchestrator.Config) { cfg.Objects = store })
}

func TestObjects(t *testing.T) {
	w := newWorld(t)
	r := w.withObjects("a")
	const s3 = "arn:aws:states:::aws-sdk:s3:"
	for _, c := range []struct{ name, resource, parameters, want string }{
		{"put", s3 + "putObject", `{"Bucket": "files", "Key": "in/orders.json", "Body": [{"n": 1}, {"n": 2}, {"n": 3}]}`, `{"ETag":"\"`},
		{"get", s3 + "getObject", `{"Bucket": "arn:aws:s3:::files", "Key": "in/orders.json"}`, `"Body":"[{\"n\":1},{\"n\":2},{\"n\":3}]","ContentLength":25,"ContentType":"application/json"`},
		{"csv", s3 + "putObject", `{"Bucket": "files", "Key": "in/orders.csv", "Body": "id,sku\n1,book\n2,\"a, b\"\n"}`, `{"ETag":"\"`},
		{"nokey", s3 + "getObject", `{"Bucket": "files", "Key": "in_orders.json"}`, "FAILED S3.NoSuchKeyException"},
		{"nobucket", s3 + "getObject", `{"Bucket": "other", "Key": "a"}`, "FAILED S3.NoSuchBucketException"},
		{"long", s3 + "getObject", `{"Bucket": "files", "Key": "` + strings.Repeat("/", 80) + `"}`, "FAILED S3.S3Exception"},
		{"empty", s3 + "putObject", `{"Bucket": "files", "Key": "e", "Body": ""}`, `{"ETag":"\"`},
		{"getempty", s3 + "getObject", `{"Bucket": "files", "Key": "e"}`, `"Body":"","ContentLength":0`},
	} {
		if got := r.run(c.name, task(c.resource, c.parameters), "{}"); !strings.Contains(got, c.want) {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}

	w.answers(func(_ string, body []byte) (int, string) {
		if strings.Contains(string(body), `"sku":"book"`) {
			return http.StatusInternalServerError, `{"error": "SoldOut", "cause": "no book"}`
		}
		return http.StatusOK, string(body)
	})
	distributed := func(reader, more string) string {
		return fmt.Sprintf(`{"StartAt": "M", "States": {"M": {"Type": "Map", "ItemReader": %s, %s "ToleratedFailurePercentage": 100,
			"ItemProcessor": {"ProcessorConfig": {"Mode": "DISTRIBUTED", "ExecutionType": "EXPRESS"}, "StartAt": "F", "States": {"F": {"Type": "Task", "Resource": "f", "End": true}}}, "End": true}}}`, reader, more)
	}
	const json3 = `{"Resource": "arn:aws:states:::s3:getObject", "ReaderConfig": {"InputType": "JSON"}, "Parameters": {"Bucket": "files", "Key": "in/orders.json"}}`
	const csv2 = `{"Resource": "arn:aws:states:::s3:getObject", "ReaderConfig": {"InputType": "CSV", "CSVHeaderLocation": "FIRST_ROW"}, "Parameters": {"Bucket": "files", "Key": "in/orders.csv"}}`
	if got, want := r.run("map", distributed(json3, `"ItemBatcher": {"MaxItemsPerBatch": 2},`), "{}"), `[{"Items":[{"n":1},{"n":2}]},{"Items":[{"n":3}]}]`; got != want {
		t.Errorf("a map over batches: %s, want %s", got, want)
	}
	written := r.run("write", distributed(csv2, `"ResultWriter": {"Resource": "arn:aws:states:::s3:putObject", "Parameters": {"Bucket": "files", "Prefix": "out"}},`), "{}")
	var output struct {
		ResultWriterDetails struct{ Bucket, Key string }
	}
	if err := json.Unmarshal([]byte(written), &output); err != nil || !strings.HasSuffix(output.ResultWriterDetails.Key, "/manifest.json") {
		t.Fatalf("the writer's output: %s: %v", written, err)
	}
	read := func(name, key string) string {
		return r.run(name, task(s3+"getObject", fmt.Sprintf(`{"Bucket": "files", "Key": %q}`, key)), "{}")
	}
	if manifest := read("manifest", output.ResultWriterDetails.Key); !strings.Contains(manifest, "SUCCEEDED_0.json") || !strings.Contains(manifest, "FAILED_0.json") {
		t.Error("the manifest:", manifest)
	}
	folder := strings.TrimSuffix(output.ResultWriterDetails.Key, "manifest.json")
	if got := read("succeeded", folder+"SUCCEEDED_0.json"); !strings.Contains(got, `a, b`) || strings.Contains(got, "SoldOut") {
		t.Error("what succeeded:", got)
	}
	if got := read("failed", folder+"FAILED_0.json"); !strings.Contains(got, "SoldOut") || strings.Contains(got, `a, b`) {
		t.Error("what failed:", got)
	}
	if got := r.run("noitems", distributed(strings.Replace(json3, "in/orders", "in/other", 1), ""), "{}"); !strings.HasPrefix(got, "FAILED States.ItemReaderFailed") {
		t.Error("no object:", got)
	}
}

func TestHTTPInvoke(t *testing.T) {
	w := newWorld(t)
	endpoint := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		switch r.URL.Path {
		case "/broken":
			rw.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(rw, "secret")
		case "/moved":
			http.Redirect(rw, r, "http://127.0.0.1:1/", http.StatusFound)
		case "/image":
			rw.Header().Set("Content-Type", "image/png")
			_, _ = io.WriteString(rw, "x")
		case "/none":
			rw.WriteHeader(http.StatusNoContent)
		default:
			rw.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(rw).Encode(map[string]any{"method": r.Method, "query": r.URL.RawQuery, "body": string(body), "token": r.Header.Get("Authorization"), "type": r.Header.Get("Content-Type")})
		}
	}))
	defer endpoint.Close()
	policy, err := egress.ParsePolicy("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	policy.PlainHTTP = true
	open := w.startAs("open", func(cfg *orchestrator.Config) { cfg.Egress = policy })
	call := func(path, more string) string {
		return task("arn:aws:states:::http:invoke", fmt.Sprintf(`{"ApiEndpoint": %q, %s}`, endpoint.URL+path, more))
	}
	for _, c := range []struct{ name, definition, want string }{
		{
			"post", call("/a?x=1", `"Method": "POST", "QueryParameters": {"q": ["a b", "c"]}, "Headers": {"Authorization": "Bearer t"}, "RequestBody": {"n": 1}`),
			`"ResponseBody":{"body":"{\"n\":1}","method":"POST","query":"x=1\u0026q=a%20b\u0026q=c","token":"Bearer t","type":"application/json; charset=UTF-8"},"StatusCode":200,"StatusText":"OK"`,
		},
		{
			"form", call("/", `"Method": "PUT", "RequestBody": {"a": {"b": true}, "c": ["x y", "z"]}, "Transform": {"RequestBodyEncoding": "URL_ENCODED"}, "Headers": {"Content-Type": "application/x-www-form-urlencoded"}`),
			`"body":"a%5Bb%5D=true\u0026c%5B0%5D=x%20y\u0026c%5B1%5D=z"`,
		},
		{"status", call("/broken", `"Method": "GET"`), "FAILED States.Http.StatusCode.403 Forbidden"},
		{"moved", call("/moved", `"Method": "GET"`), "FAILED States.Http.StatusCode.302 Found"},
		{"image", call("/image", `"Method": "GET"`), "FAILED States.Runtime Unsupported response content-type 'image/png'."},
		{"none", call("/none", `"Method": "DELETE"`), `"StatusCode":204,"StatusText":"No Content"}`},
		{"badheader", call("/", `"Method": "GET", "Headers": {"a b": "c"}`), `FAILED States.Runtime "a b" is no name of a header`},
		{"header", call("/", `"Method": "GET", "Headers": {"X-Forwarded-For": "1.2.3.4"}`), "FAILED States.Runtime The 'Headers' field contains unsupported values: [x-forwarded-for]"},
		{"method", call("/", `"Method": "CONNECT"`), "FAILED States.Runtime"},
		{"socket", task("arn:aws:states:::http:invoke", `{"ApiEndpoint": "http://127.0.0.1:1/", "Method": "GET"}`), "FAILED States.Http.Socket"},
	} {
		if got := open.run(c.name, c.definition, "{}"); !strings.Contains(got, c.want) {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
	open.stop()
	closed := w.start("closed")
	for name, endpoint := range map[string]string{"loopback": strings.Replace(endpoint.URL, "http:", "https:", 1), "name": "https://localhost/", "metadata": "https://169.254.169.254/latest/meta-data/"} {
		got := closed.run(name, task("arn:aws:states:::http:invoke", fmt.Sprintf(`{"ApiEndpoint": %q, "Method": "GET"}`, endpoint)), "{}")
		if !strings.HasPrefix(got, "FAILED States.Http.AccessDenied") {
			t.Errorf("%s was called: %s", name, got)
		}
	}
}

// TestTablesAndSizes: an item that no message could hold is refused, and does no harm to its partition.
func TestTablesAndSizes(t *testing.T) {
	w := newWorld(t)
	r := w.start("a")
	if status, answer := r.request(http.MethodPut, "/tables/large", map[string]any{"key": "id"}); status != http.StatusOK {
		t.Fatal(status, answer)
	}
	r.put("grow", task("arn:aws:states:::dynamodb:updateItem", `{"TableName": "large", "Key": {"id": {"S": "c"}}, "UpdateExpression": "SET #n = :text", "ExpressionAttributeNames": {"#n.$": "$.name"},
		"ExpressionAttributeValues": {":text": {"S.$": "$.text"}}, "ReturnValues": "ALL_NEW"}`))
	refused := false
	for n := range 6 {
		input, err := json.Marshal(map[string]string{"name": fmt.Sprintf("#n%d", n)[1:], "text": strings.Repeat("\"\\", 45<<10)})
		if err != nil {
			t.Fatal(err)
		}
		got := r.end(r.begin("grow", fmt.Sprint(n), string(input)))
		refused = refused || strings.Contains(got, "Item size")
	}
	if !refused {
		t.Error("no change was refused")
	}
	r.stop()
	r = w.start("b")
	if got := r.run("after", task("arn:aws:states:::aws-sdk:dynamodb:getItem", `{"TableName": "large", "Key": {"id": {"S": "d"}}}`), "{}"); got != "{}" {
		t.Error("after a change of owner:", got)
	}
}

// TestTablesAndNames: a name that was used before does not make a call one that was made already.
func TestTablesAndNames(t *testing.T) {
	w := newWorld(t)
	r := w.start("a")
	if status, answer := r.request(http.MethodPut, "/tables/sums", map[string]any{"key": "id"}); status != http.StatusOK {
		t.Fatal(status, answer)
	}
	definition := task("arn:aws:states:::aws-sdk:dynamodb:updateItem", `{"TableName": "sums", "Key": {"id": {"S": "c"}}, "UpdateExpression": "ADD n :n", "ExpressionAttributeValues": {":n": {"N.$": "$.n"}}, "ReturnValues": "UPDATED_NEW"}`)
	if status, answer := r.request(http.MethodPut, "/state-machines/sum", map[string]any{"definition": json.RawMessage(definition), "type": "EXPRESS"}); status != http.StatusOK {
		t.Fatal(status, answer)
	}
	for _, n := range []string{"1", "5"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.api.URL+"/state-machines/sum/executions", strings.NewReader(fmt.Sprintf(`{"name": "same", "input": {"n": %q}}`, n)))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Prefer", "wait=20")
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
	}
	http.DefaultClient.CloseIdleConnections()
	if got := r.run("read", task("arn:aws:states:::aws-sdk:dynamodb:getItem", `{"TableName": "sums", "Key": {"id": {"S": "c"}}}`), "{}"); got != `{"Item":{"id":{"S":"c"},"n":{"N":"6"}}}` {
		t.Errorf("after 1 and 5: %s", got)
	}
}
