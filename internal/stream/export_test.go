package stream

import "context"

// SetMaxPayload makes the connection believe that the server takes so much, as it does when that has changed since the
// server was last asked.
func (c *Conn) SetMaxPayload(n int64) { c.maxPayload.Store(n) }

// Waiting is how many records wait in the open group.
func (w *Writer) Waiting() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.open.b.Len()
}

// ObserveWaiting has what waits in w observed before Run.
func (w *Writer) ObserveWaiting() { w.conn.metrics.add(w) }

// StreamNames are the names of all streams.
func (c *Conn) StreamNames(ctx context.Context) (names []string, err error) {
	l := c.js.StreamNames(ctx)
	for name := range l.Name() {
		names = append(names, name)
	}
	return names, l.Err()
}

// Look asks about a stream.
func (c *Conn) Look(ctx context.Context, name string) error {
	_, err := c.info(ctx, name)
	return err
}
