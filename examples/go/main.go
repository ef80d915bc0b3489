// Command customers keeps customers that are PUT, without any SDK.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"time"
)

// maxBody bounds a call: a batch has at most the mapping's batch.maxBytes of bodies, 4 MiB unless it says otherwise.
const maxBody = 16 << 20

// event is a CloudEvent: a record of the queue.
type event struct {
	ID      string          `json:"id"`          // the same each time the record comes: write by it
	Subject string          `json:"subject"`     // the request's path
	Method  string          `json:"weirmethod"`  // its method
	Data    json.RawMessage `json:"data"`        // its body, if that is JSON
	Binary  []byte          `json:"data_base64"` // any other body; an empty one is in neither

	// What the route names in attributes.
	Customer string `json:"customer"`
	Tenant   string `json:"tenant"`
	Lang     string `json:"lang"`
}

// failure names a record that failed, in AWS Lambda's shape.
type failure struct {
	ID     string `json:"itemIdentifier"`
	Reason string `json:"reason,omitempty"` // an operator reads it in the dead-letter queue
}

func handle(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody)) // read it before answering
	if err != nil {
		http.Error(w, "the body can't be read", http.StatusBadRequest)
		return
	}
	var events []event
	if err := json.Unmarshal(body, &events); err != nil {
		http.Error(w, "not a batch of CloudEvents", http.StatusBadRequest) // permanent: the batch is bisected
		return
	}
	failed := []failure{}
	for _, e := range events {
		if err := store(e); err != nil {
			failed = append(failed, failure{e.ID, err.Error()}) // it alone comes again
		}
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"batchItemFailures": failed})
}

// store prints a customer; write yours to a database by e.ID, so that a record that comes again changes nothing.
func store(e event) error {
	if e.Customer == "" {
		return errors.New("no customer")
	}
	fmt.Printf("%s %s customer=%s tenant=%s lang=%s %s%s\n", e.Method, e.Subject, e.Customer, e.Tenant, e.Lang, e.Data, e.Binary)
	return nil
}

func main() {
	port := os.Getenv("PORT") // Knative sets it
	if port == "" {
		port = "8080"
	}
	srv := &http.Server{Addr: ":" + port, Handler: http.HandlerFunc(handle), ReadHeaderTimeout: 10 * time.Second}
	log.Fatal(srv.ListenAndServe())
}
