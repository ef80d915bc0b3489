package record

// A record of a block of format 1, which this version reads and doesn't write any more. The next one need not read it.
//
//	flags              bit 0: Body is JSON; bit 1: a failure follows; bit 2: trace context follows;
//	                   bit 3: the time of a redrive follows; bit 4: the record is a job;
//	                   bit 5: an input follows; bit 6: a client follows
//	id                 16 bytes
//	time               Unix nanoseconds, 8 bytes big endian
//	attempts
//	source, contentType                       each length, bytes
//	[traceparent, tracestate]                 flag bit 2
//	[failure time (8 bytes), status, reason]  flag bit 1
//	[redriven (8 bytes)]                      flag bit 3
//	[input object, size, etag]                flag bit 5
//	[client (12 bytes)]                       flag bit 6
//	body               length, bytes
const (
	flag1JSON = 1 << iota
	flag1Failure
	flag1Trace
	flag1Redriven
	flag1Job
	flag1Input
	flag1Client
	flags1Known = 1<<iota - 1
)

// record1 reads one. The fields have no lengths of their own: after an unknown flag nothing more can be read.
func (d *decoder) record1(r *Record) {
	flags := d.fixed(1)[0]
	copy(r.ID[:], d.fixed(16))
	r.Time = d.time()
	r.Attempts = d.count()
	r.Source = d.shared(&d.source)
	r.ContentType = d.shared(&d.contentType)
	if flags&flag1Trace != 0 {
		r.TraceParent, r.TraceState = d.string(), d.string()
	}
	if flags&flag1Failure != 0 {
		r.Failure = &Failure{Time: d.time(), Status: d.count(), Reason: d.string()}
	}
	r.JSON, r.Job = flags&flag1JSON != 0, flags&flag1Job != 0
	if flags&flag1Redriven != 0 {
		_, r.Redrives = d.time(), 1 // how often isn't known
	}
	if flags&flag1Input != 0 {
		r.Input = &Input{Object: d.string(), Size: int64(min(d.uvarint(), 1<<62)), ETag: d.string()}
	}
	if flags&flag1Client != 0 {
		copy(r.Client[:], d.fixed(len(r.Client)))
	}
	if flags&^flags1Known != 0 {
		d.failed = true
	}
	r.Body = d.bytes()
}
