package tracelog

import (
	"encoding/json"
	"net/http"
	"strconv"
)

// Of the list of traces.
const (
	defaultListed = 20
	maxListed     = maxTraces
)

// NotFound begins the answer of 404 to an id that is unknown here.
const NotFound = "no trace of this id"

// ServeHTTP serves GET /traces, the newest first (limit=N of the query: how many), GET /traces/{id} of a trace's or a record's
// id, and takes spans at POST /v1/traces.
func (l *Log) ServeHTTP(w http.ResponseWriter, r *http.Request) { l.mux.ServeHTTP(w, r) }

func (l *Log) routes() *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /traces", l.serveList)
	mux.HandleFunc("GET /traces/{id}", l.serveTrace)
	mux.HandleFunc("POST /v1/traces", l.receive)
	return mux
}

// List is the answer of GET /traces.
type List struct {
	Traces []Summary `json:"traces"`
}

func (l *Log) serveList(w http.ResponseWriter, r *http.Request) {
	n := defaultListed
	if text := r.URL.Query().Get("limit"); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil || n < 1 || n > maxListed {
			http.Error(w, "limit is a number from 1 to "+strconv.Itoa(maxListed), http.StatusBadRequest)
			return
		}
	}
	write(w, List{l.Last(n)})
}

func (l *Log) serveTrace(w http.ResponseWriter, r *http.Request) {
	t, ok := l.Find(r.PathValue("id"))
	if !ok {
		http.Error(w, NotFound+": it is not here yet, was not sampled, or has gone for newer ones", http.StatusNotFound)
		return
	}
	write(w, t)
}

func write(w http.ResponseWriter, v any) {
	body, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(append(body, '\n')) // the client has gone: nobody is left to tell
}
