package items

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
	"time"

	"github.com/weir-dev/weir/internal/jsontree"
)

// Transformations of results (WriterConfig).
const (
	None    = "NONE"    // what is known of the execution; the default of files
	Compact = "COMPACT" // its output; the default of a state's output
	Flatten = "FLATTEN" // its output, and of an array the elements
)

// Status is how an execution of a Map Run ended.
type Status string

// The statuses of a Map Run's executions.
const (
	Succeeded Status = "SUCCEEDED"
	Failed    Status = "FAILED"
	TimedOut  Status = "TIMED_OUT"
	Aborted   Status = "ABORTED"
	Pending   Status = "PENDING" // it was not started, as the Map Run failed or was aborted before
)

// MaxFileBytes is after how many bytes AWS begins another file of results.
const MaxFileBytes = 5 << 30

// WriterConfig is how results are written.
type WriterConfig struct {
	Transformation string // None, Compact or Flatten; default: None
	OutputType     string // JSON or JSONL; default: JSON
}

// Validate names the field that can't be, and what to write.
func (c WriterConfig) Validate() error {
	switch c.Transformation {
	case "", None, Compact, Flatten:
	default:
		return fmt.Errorf("Transformation is %q: it must be NONE, COMPACT or FLATTEN", c.Transformation) //nolint:staticcheck // a field's name
	}
	switch c.OutputType {
	case "", JSON, JSONL:
	default:
		return fmt.Errorf("OutputType is %q: it must be JSON or JSONL", c.OutputType)
	}
	return nil
}

// Result is one execution of a Map Run. Input and Output are values as of package jsontree.
type Result struct {
	ExecutionARN    string
	StateMachineARN string
	Name            string
	Status          Status
	Input           any
	Output          any     // if it succeeded
	Error           *string // if it did not; nil: none
	Cause           *string
	Start           time.Time
	Stop            time.Time
	RedriveCount    int
}

// Entries is what a result becomes in a file, or in the output of a state that has a WriterConfig only. What failed is as
// with None in any case.
func (r *Result) Entries(transformation string) []any {
	if r.Status == Succeeded {
		switch list, isList := r.Output.([]any); {
		case transformation == Flatten && isList:
			return list
		case transformation == Flatten || transformation == Compact:
			return []any{r.Output}
		}
	}
	return []any{r.entry()}
}

// entry has the members of the user guide's example in their order, which is that of the alphabet; those that an execution
// hasn't are left out. Of one that failed the members are those of a file of AWS's in 2025 (a test of a public project has
// it): an OutputDetails without Output, and no RedriveStatusReason. Of one that is pending: Input, InputDetails, Status.
func (r *Result) entry() *jsontree.Object {
	o := jsontree.NewObject(15)
	text := func(name, value string) {
		if value != "" {
			o.Set(name, value)
		}
	}
	date := func(name string, t time.Time) {
		if !t.IsZero() {
			o.Set(name, t.UTC().Format("2006-01-02T15:04:05.000Z"))
		}
	}
	included := jsontree.Of("Included", true)
	if r.Cause != nil {
		o.Set("Cause", *r.Cause)
	}
	if r.Error != nil {
		o.Set("Error", *r.Error)
	}
	text("ExecutionArn", r.ExecutionARN)
	o.Set("Input", document(r.Input))
	o.Set("InputDetails", included)
	text("Name", r.Name)
	if r.Status == Succeeded {
		o.Set("Output", document(r.Output))
	}
	if r.Status != Pending {
		o.Set("OutputDetails", included)
		o.Set("RedriveCount", integer(int64(r.RedriveCount)))
		if r.Status == Succeeded {
			o.Set("RedriveStatus", "NOT_REDRIVABLE")
			o.Set("RedriveStatusReason", "Execution is SUCCEEDED and cannot be redriven")
		} else {
			o.Set("RedriveStatus", "REDRIVABLE_BY_MAP_RUN")
		}
		date("StartDate", r.Start)
	}
	text("StateMachineArn", r.StateMachineARN)
	o.Set("Status", string(r.Status))
	date("StopDate", r.Stop)
	return o
}

// document is a value as a text that is JSON. What is no JSON value it returns as it is, and Encode refuses it.
func document(v any) any {
	b, err := jsontree.Append(nil, v)
	if err != nil {
		return v
	}
	return string(b)
}

// Encoder writes one file of results. Whoever splits results into files asks for Size, and begins another file at
// MaxFileBytes.
type Encoder struct {
	w       *bufio.Writer
	c       WriterConfig
	entries int64
	size    int64
	buf     []byte
	err     error
}

// NewEncoder returns an encoder into w.
func NewEncoder(w io.Writer, c WriterConfig) *Encoder {
	return &Encoder{w: bufio.NewWriter(w), c: c, err: c.Validate()}
}

// Encode writes a result. After an error there is nothing but errors: the file is not whole.
func (e *Encoder) Encode(r *Result) error {
	for _, entry := range r.Entries(e.c.Transformation) {
		if e.err != nil {
			break
		}
		b := e.buf[:0]
		switch {
		case e.c.OutputType == JSONL:
		case e.entries == 0:
			b = append(b, '[')
		default:
			b = append(b, ',')
		}
		if b, e.err = jsontree.Append(b, entry); e.err != nil {
			break
		}
		if e.c.OutputType == JSONL {
			b = append(b, '\n')
		}
		e.entries++
		e.write(b)
		e.buf = b
	}
	return e.err
}

func (e *Encoder) write(b []byte) {
	if e.err != nil {
		return
	}
	n, err := e.w.Write(b)
	e.size += int64(n)
	e.err = err
}

// Size is how many bytes the file has so far.
func (e *Encoder) Size() int64 { return e.size }

// Close ends the file; the writer it leaves open.
func (e *Encoder) Close() error {
	if e.c.OutputType != JSONL {
		if e.entries == 0 {
			e.write([]byte{'['})
		}
		e.write([]byte{']'})
	}
	if e.err != nil {
		return e.err
	}
	if e.err = e.w.Flush(); e.err != nil {
		return e.err
	}
	e.err = errors.New("the file of results is closed")
	return nil
}

// WriteFile writes one file of results, and returns its size in bytes.
func WriteFile(w io.Writer, results iter.Seq2[*Result, error], c WriterConfig) (int64, error) {
	e := NewEncoder(w, c)
	for r, err := range results {
		if err != nil {
			return e.Size(), err
		}
		if err := e.Encode(r); err != nil {
			return e.Size(), err
		}
	}
	err := e.Close()
	return e.Size(), err
}

// FileName is the name of file n, from 0, of results of that status: SUCCEEDED_0.json, FAILED_0.json (of those that failed,
// timed out or were aborted) or PENDING_0.json. That the ending of JSON Lines is .jsonl is our choice.
func FileName(s Status, n int, outputType string) string {
	group := Failed
	if s == Succeeded || s == Pending {
		group = s
	}
	if outputType == JSONL {
		return fmt.Sprintf("%s_%d.jsonl", group, n)
	}
	return fmt.Sprintf("%s_%d.json", group, n)
}

// Folder is the prefix of the keys of a Map Run's files, with a / at its end: Prefix/ID/, where the ID is what follows the last
// colon of its ARN.
func Folder(prefix, mapRunARN string) string {
	folder := mapRunARN[strings.LastIndexByte(mapRunARN, ':')+1:] + "/"
	if prefix = strings.TrimSuffix(prefix, "/"); prefix != "" {
		return prefix + "/" + folder
	}
	return folder
}

// File is a file of results.
type File struct {
	Key  string
	Size int64 // bytes
}

// Manifest describes the files of a Map Run; its own name is ManifestName.
type Manifest struct {
	Bucket    string
	MapRunARN string
	Failed    []File
	Pending   []File
	Succeeded []File
}

// ManifestName is the name of a Map Run's manifest in its folder.
const ManifestName = "manifest.json"

// Document is what the manifest's file has.
func (m Manifest) Document() *jsontree.Object {
	list := func(files []File) []any {
		entries := make([]any, len(files))
		for i, f := range files {
			entries[i] = jsontree.Of("Key", f.Key, "Size", integer(f.Size))
		}
		return entries
	}
	return jsontree.Of("DestinationBucket", m.Bucket, "MapRunArn", m.MapRunARN,
		"ResultFiles", jsontree.Of("FAILED", list(m.Failed), "PENDING", list(m.Pending), "SUCCEEDED", list(m.Succeeded)))
}

// Output is the output of a Map state whose results were written below a prefix: where the manifest is.
func (m Manifest) Output(prefix string) *jsontree.Object {
	return jsontree.Of("MapRunArn", m.MapRunARN,
		"ResultWriterDetails", jsontree.Of("Bucket", m.Bucket, "Key", Folder(prefix, m.MapRunARN)+ManifestName))
}
