package e2e_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
)

// testStateMachines: a job runs the sample's state machine, while its functions are at zero pods: two reports and an order. What it
// did is in the history at the operator's port.
func testStateMachines(t *testing.T) {
	gateway := "http://" + forward(t, weirNamespace, "svc/weir-gateway", 80)
	if m := get[struct {
		Status struct {
			StateMachineArn string `json:"stateMachineArn"`
		} `json:"status"`
	}](t, "-n", sampleNamespace, "statemachines.weir.dev/restock"); m.Status.StateMachineArn != "arn:weir:states::default:stateMachine:restock" {
		t.Errorf("the status says %+v", m.Status)
	}
	status, answer, _ := post(t, gateway+"/restocks", `{"sku":"restocked"}`)
	var job struct {
		ID, Status string
		Result     struct{ Data struct{ Order string } }
		Links      struct{ Self string }
	}
	if err := json.Unmarshal([]byte(answer), &job); status != http.StatusAccepted || err != nil {
		t.Fatalf("POST /restocks: %d %s", status, answer)
	}
	self := gateway + job.Links.Self
	took := eventually(t, "the job's execution has ended", func() string {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, self, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Prefer", "wait=5")
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return err.Error()
		}
		defer res.Body.Close()
		if err := json.NewDecoder(res.Body).Decode(&job); err != nil {
			return err.Error()
		}
		if job.Status != "succeeded" && job.Status != "failed" {
			return job.Status
		}
		return ""
	})
	if job.Status != "succeeded" || job.Result.Data.Order == "" {
		t.Fatalf("the job is %+v", job)
	}
	db := database(t)
	eventually(t, "the order is a row", func() string {
		if count(t, db, `SELECT count(*) FROM orders WHERE id = $1 AND sku = 'restocked'`, job.Result.Data.Order) == 0 {
			return "no row"
		}
		return ""
	})
	t.Logf("POST /restocks: two reports and an order after %s", took)

	admin := "http://" + forward(t, weirNamespace, "svc/weir-orchestrator-admin", 8081)
	res, err := http.Get(admin + "/state-machines/restock/executions?status=SUCCEEDED")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var listed struct{ Executions []struct{ ID string } }
	if err := json.NewDecoder(res.Body).Decode(&listed); err != nil || len(listed.Executions) != 1 || !strings.HasPrefix(listed.Executions[0].ID, "restock:") {
		t.Errorf("the executions: %+v, %v", listed, err)
	}
}
