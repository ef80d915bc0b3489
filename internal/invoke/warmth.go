package invoke

import (
	"net/http"
	"time"
)

// Nothing in an answer says that an instance was started for it: Knative's activator holds the call until there is one, and
// passes the answer on as it is. So a cold start is inferred. These are of the inference by time.
const (
	// idleToZero is how long nobody calls until Knative scales to zero, by its default stable-window.
	idleToZero = time.Minute
	// coldExtra is what a start takes at least, on top of twice what a call usually takes.
	coldExtra = 500 * time.Millisecond
	// usualShare is the share of a call in the mean of those before it.
	usualShare = 8
)

// warmth tells the answers of a function that was away from the others: the first after a call that found no connection, and
// the first after idleToZero without a call if it took longer than calls usually do. It knows one mapping's calls only, and
// nothing before the first. A 503 is not taken for an absence: functions give it for what is behind them.
type warmth struct {
	away     bool
	answered time.Time     // when an instance last answered; zero before the first
	usual    time.Duration // moving mean of the calls that were answered
}

// see takes a call that ended at now, and reports whether it was a cold start.
func (w *warmth) see(o Outcome, now time.Time) (cold bool) {
	switch {
	case o.trouble == troubleNoConnection:
		w.away = true
		return false
	case o.Status == http.StatusTooManyRequests:
		w.answered = now
		return false
	case o.Status == 0, o.Class == NotNow, o.GatewayErr:
		return false
	}
	idle := now.Add(-o.took).Sub(w.answered)
	slow := !w.answered.IsZero() && idle >= idleToZero && w.usual > 0 && o.took >= 2*w.usual+coldExtra
	cold = w.away || slow
	w.away, w.answered = false, now
	if w.usual == 0 {
		w.usual = o.took
	} else if !cold {
		w.usual += (o.took - w.usual) / usualShare
	}
	return cold
}
