package jobapi

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/weir-dev/weir/internal/job"
	"github.com/weir-dev/weir/internal/ownpath"
	"github.com/weir-dev/weir/internal/problem"
)

// maxShown bounds a result that is inline in a document, in bytes. A client has to ask for a larger one.
const maxShown = 64 << 10

// Document is what clients see of a job (docs/contracts.md).
type Document struct {
	ID       string           `json:"id"`
	Status   job.Status       `json:"status"`
	Version  string           `json:"version"` // differs between states
	Created  time.Time        `json:"created"`
	Started  time.Time        `json:"started,omitzero"`
	Finished time.Time        `json:"finished,omitzero"`
	Attempts int              `json:"attempts"`
	Progress *job.Progress    `json:"progress,omitempty"`
	Error    *problem.Problem `json:"error,omitempty"`
	Result   *Shown           `json:"result,omitempty"`
	Links    Links            `json:"links"`
	// Position is only in feeds: the cursor that the client gives when it reconnects, to get what is later.
	Position string `json:"position,omitempty"`
}

// Shown is a result. A small one is inline, as in CloudEvents' JSON format: JSON as it is, text as a string, anything
// else in base64.
type Shown struct {
	job.Result
	Data   json.RawMessage `json:"data,omitempty"`
	Base64 string          `json:"data_base64,omitempty"`
}

// Links lead to the other resources of a job.
type Links struct {
	Self   string `json:"self"`
	Result string `json:"result"`
	Events string `json:"events"`
	Socket string `json:"socket"`
}

// NewDocument shows the state s of the job whose id is text. body is the result, nil if it isn't loaded.
func NewDocument(base ownpath.Base, text string, s *job.State, body []byte) Document {
	self := base.Of(ownpath.Jobs + text)
	d := Document{
		ID: text, Status: s.Status, Version: Version(s), Created: s.Created, Started: s.Started, Finished: s.Finished,
		Attempts: s.Attempts, Progress: s.Progress,
		Links: Links{Self: self, Result: self + "/result", Events: self + "/events", Socket: self + "/socket"},
	}
	if s.Error != nil && s.Status != job.Succeeded {
		p := LatestProblem(s)
		d.Error = &p
	}
	if s.Result != nil {
		d.Result = show(*s.Result, body)
	}
	return d
}

// Shows reports whether a document of s has the result inline, once it is loaded.
func Shows(s *job.State) bool {
	return s.Result != nil && s.Result.Size > 0 && s.Result.Size <= maxShown
}

func show(r job.Result, body []byte) *Shown {
	out := &Shown{Result: job.Result{ContentType: r.ContentType, Size: r.Size}}
	if len(body) == 0 || len(body) > maxShown {
		return out
	}
	media, _, err := mime.ParseMediaType(r.ContentType)
	if err != nil {
		media = ""
	}
	switch {
	case (media == "application/json" || strings.HasSuffix(media, "+json")) && json.Valid(body):
		out.Data = body
	case strings.HasPrefix(media, "text/") && utf8.Valid(body):
		out.Data, err = json.Marshal(string(body))
	default:
		out.Base64 = base64.StdEncoding.EncodeToString(body)
	}
	if err != nil {
		out.Data = nil
	}
	return out
}

// LatestProblem says why the latest attempt failed; s.Error is set. It is the function's own problem, if it gave one, and
// has its status if that is 4xx, else 500.
func LatestProblem(s *job.State) problem.Problem {
	p := problem.Problem{Type: problem.JobFailed, Title: "The job failed", Detail: s.Error.Detail}
	p.Status = http.StatusInternalServerError
	if s.Status != job.Failed {
		p.Title = "The latest attempt failed"
	}
	if s.Error.Type+s.Error.Title != "" { // the function's own
		p.Type, p.Title, p.CountAs = cmp.Or(s.Error.Type, "about:blank"), s.Error.Title, problem.JobFailed
	}
	if s.Error.Status >= 400 && s.Error.Status < 500 {
		p.Status = s.Error.Status
	}
	return p
}

// Version identifies a state among those of its job, for clients. It is more than a sequence: in a queue that was
// deleted and created again, the job of the same idempotency key can have another state at the same sequence.
func Version(s *job.State) string {
	switch {
	case s.Version() != 0:
	case s.Status == job.Expired:
		return "expired"
	default:
		return "0"
	}
	return fmt.Sprintf("%d-%08x", s.Version(), s.Sum())
}

// ParseVersion returns the sequence in what Version wrote; ok is false for anything else, such as a bare sequence.
func ParseVersion(text string) (seq uint64, ok bool) {
	number, sum, more := strings.Cut(text, "-")
	seq, err := strconv.ParseUint(number, 10, 64)
	_, serr := strconv.ParseUint(sum, 16, 32)
	return seq, err == nil && (more && serr == nil || text == "0")
}
