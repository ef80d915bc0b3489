package orchestrator_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// TestStatements: ResourceArn names the function, which gets all that the task says, and its errors are the task's.
func TestStatements(t *testing.T) {
	w := newWorld(t)
	said := make(chan string, 16)
	w.answers(func(function string, body []byte) (int, string) {
		said <- function + " " + string(body)
		switch {
		case strings.Contains(string(body), "missing"):
			return http.StatusBadRequest, `{"error": "RdsData.DatabaseErrorException", "cause": "ERROR: relation \"missing\" does not exist; SQLState: 42P01"}`
		case strings.Contains(string(body), "crash"):
			return http.StatusInternalServerError, "broken"
		case w.called(function) == 1: // a full pool
			return http.StatusServiceUnavailable, ""
		}
		return http.StatusOK, `{"GeneratedFields": [], "NumberOfRecordsUpdated": 0, "Records": [[{"LongValue": 42}]]}`
	})
	r := w.start("a")
	const sdk, own = "arn:aws:states:::aws-sdk:rdsdata:executeStatement", "arn:aws:states:::rds-data:executeStatement"
	const cluster = "arn:aws:rds:eu-central-1:123456789012:cluster:"
	for i, c := range []struct{ resource, arn, sql, want, said string }{
		{
			sdk, cluster + "shop", "SELECT 1", `{"GeneratedFields":[],"NumberOfRecordsUpdated":0,"Records":[[{"LongValue":42}]]}`,
			`shop {"ResourceArn":"` + cluster + `shop","Sql":"SELECT 1","Parameters":[{"Name":"id","Value":{"LongValue":7}}]}`,
		},
		{own, "query", "SELECT 1", `"Records":[[{"LongValue":42}]]`, `query {"ResourceArn":"query"`},
		{own, "query", "SELECT * FROM missing", `FAILED RdsData.DatabaseErrorException ERROR: relation "missing" does not exist; SQLState: 42P01`, "query"},
		{sdk, "query", "crash", "FAILED RdsData.RdsDataException", "query"},
		{sdk, cluster + "no-shop", "SELECT 1", `FAILED RdsData.DatabaseNotFoundException there is no function "no-shop" in the namespace default`, ""},
		{sdk, cluster, "SELECT 1", "FAILED RdsData.BadRequestException executeStatement needs a ResourceArn", ""},
	} {
		got := r.run(fmt.Sprint("m", i), task(c.resource, fmt.Sprintf(`{"ResourceArn": %q, "Sql": %q, "Parameters": [{"Name": "id", "Value": {"LongValue.$": "$.id"}}]}`, c.arn, c.sql)), `{"id": 7}`)
		if !strings.Contains(got, c.want) {
			t.Errorf("%s, %s: %s, want %s", c.arn, c.sql, got, c.want)
		}
		if c.said == "" {
			continue
		}
		for len(said) > 0 { // again after "not now"
			if got := <-said; !strings.HasPrefix(got, c.said) {
				t.Errorf("the function got %s, want %s", got, c.said)
			}
		}
	}
	if shop, query := w.called("shop"), w.called("query"); shop != 2 || query != 4 {
		t.Errorf("%d and %d calls: each function says \"not now\" once", shop, query)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if id := w.headers["query"].Get("Ce-Id"); len(id) != 36 {
		t.Errorf("ce-id is %q, by which a call is made once", id)
	}
}
