// Package pace bounds how slowly the peer of a transfer may send or read.
//
// May import: the standard library only.
package pace

import "time"

// Pace is the progress of a transfer.
type Pace struct {
	Start time.Time
	Grace time.Duration // how long the peer may send or read nothing
	Rate  float64       // bytes a second over all, once the grace is over
	Bytes int64
}

// Deadline is when the peer has sent or read too little.
func (p *Pace) Deadline() time.Time {
	still := time.Now().Add(p.Grace)
	over := p.Start.Add(p.Grace + time.Duration(float64(p.Bytes)/p.Rate*float64(time.Second)))
	if over.Before(still) {
		return over
	}
	return still
}
