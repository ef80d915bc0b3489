package stream

import "time"

// Each synced write costs the server some 450 µs of processor time, so jobs that come faster than paceRate wait a little for
// each other. Below that each is written at once.
const (
	// paceGap is the time from the beginning of a write to that of the next.
	paceGap = 11500 * time.Microsecond
	// paceEnough is how many share a write that waits no longer.
	paceEnough = 128
	// paceRate is how many changes a second are paced.
	paceRate = 500
	// paceChanges is over how many of them that is measured.
	paceChanges = 32
)

// Pace decides how long a group of changes that could be written waits for others to share its synced write. It is
// guarded by its user's mutex.
type Pace struct {
	// Nothing has come for Idle when the wait ends early, but not before half of it: what would come waits for this write, maybe.
	Idle time.Duration

	recent [paceChanges]time.Time // ring of the latest changes
	next   int                    // in recent
	began  time.Time              // the latest write
}

// Came is told of a change.
func (p *Pace) Came(now time.Time) {
	p.recent[p.next] = now
	p.next = (p.next + 1) % paceChanges
}

// Began is told that a write begins.
func (p *Pace) Began(now time.Time) { p.began = now }

// Wait is how long a write of so many changes is to wait at now; zero or less if it is not to.
func (p *Pace) Wait(now time.Time, changes int) time.Duration {
	oldest, newest := p.recent[p.next], p.recent[(p.next+paceChanges-1)%paceChanges]
	if now.Sub(oldest) > paceChanges*time.Second/paceRate || changes >= paceEnough {
		return 0
	}
	return min(paceGap-now.Sub(p.began), max(paceGap/2-now.Sub(p.began), p.Idle-now.Sub(newest)))
}
