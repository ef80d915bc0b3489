package jobapi

import (
	"net/http"
	"time"

	"github.com/weir-dev/weir/internal/job"
	"github.com/weir-dev/weir/internal/ownpath"
)

// newFeed answers with a new feed's id. It stores nothing.
func (a *API) newFeed(w http.ResponseWriter, _ *http.Request, _ []byte) {
	text, err := job.NewFeed().Text(a.Ring(), time.Now())
	if err != nil {
		problemOf(err, "").Write(w)
		return
	}
	self := a.cfg.Base.Of(ownpath.Feeds + text)
	h := w.Header()
	h.Set("Location", self)
	h.Set("Cache-Control", "no-store")
	writeJSON(w, http.StatusCreated, []byte(`{"id":"`+text+`","links":{"events":"`+self+`/events","socket":"`+self+`/socket"}}`))
}

func writeJSON(w http.ResponseWriter, status int, body []byte) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n'))
}
