package orchestrator

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/weir-dev/weir/internal/blob"
	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/items"
	"github.com/weir-dev/weir/internal/jsontree"
	"github.com/weir-dev/weir/internal/statelang"
	"github.com/weir-dev/weir/internal/stream"
)

// The object store as S3: a bucket is a queue of the machine's namespace that has jobs, and keeps the objects for as long as
// theirs. Keys have a prefix of their own, so that no machine reads or replaces what clients and functions have stored.

const objectPrefix = "s3-"

// objectKey is a key of S3's as one of the store's.
func objectKey(key string) (string, error) {
	var b strings.Builder
	b.WriteString(objectPrefix)
	for i := range len(key) {
		if c := key[i]; c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "_%02x", c)
		}
	}
	if key == "" || b.Len() > stream.MaxObjectKey {
		return "", fmt.Errorf("the Key has %d characters, of which all but letters, digits and - count three times: 1 to %d are allowed", len(key), stream.MaxObjectKey-len(objectPrefix))
	}
	return b.String(), nil
}

// object is what a call is about.
type object struct {
	bucket catalog.Queue
	key    string // as S3 has it
	stored string // as the store has it
}

// objectOf reads Bucket and Key of an input.
func (o *Orchestrator) objectOf(id ID, input *jsontree.Object) (object, *statelang.Failure) {
	bucket, _ := textOf(input, "Bucket")
	key, ok := textOf(input, "Key")
	name := bucket[strings.LastIndexByte(bucket, ':')+1:] // of an ARN
	if bucket == "" || !ok {
		return object{}, statelang.NewFailure("S3.S3Exception", "Bucket and Key must be given, as texts")
	}
	k := catalog.Key{Namespace: id.Machine.Namespace, Name: name}
	queues := o.catalog.Load().Queues
	i := slices.IndexFunc(queues, func(q catalog.Queue) bool { return q.Key == k && q.Jobs })
	if i < 0 || o.cfg.Objects == nil {
		return object{}, statelang.NewFailure("S3.NoSuchBucketException", fmt.Sprintf(
			"The specified bucket does not exist: %s is no Queue of the namespace %s that a route submits jobs to", name, k.Namespace))
	}
	stored, err := objectKey(key)
	if err != nil {
		return object{}, statelang.NewFailure("S3.S3Exception", err.Error())
	}
	return object{queues[i], key, stored}, nil
}

const noSuchKey = "S3.NoSuchKeyException"

// opened returns the object; the failure is what can't be helped by trying again, the error is ctx's.
func (o *Orchestrator) opened(ctx context.Context, at object) (*blob.Object, *statelang.Failure, error) {
	for range tries(ctx, firstBackoff, maxBackoff) {
		found, err := o.cfg.Objects.Open(ctx, at.bucket.Key, at.stored)
		switch {
		case err == nil:
			return found, nil, nil
		case errors.Is(err, blob.ErrNotFound):
			return nil, statelang.NewFailure(noSuchKey, "The specified key does not exist. (Service: S3, Status Code: 404)"), nil
		}
		o.again(ctx, err.Error())
	}
	return nil, nil, context.Cause(ctx)
}

// getObject is arn:aws:states:::aws-sdk:s3:getObject: Bucket and Key. Its Body is a text.
func (o *Orchestrator) getObject(ctx context.Context, id ID, e statelang.Effect) statelang.Event {
	input, _ := e.Input.(*jsontree.Object)
	at, f := o.objectOf(id, input)
	if f != nil {
		return statelang.Event{Kind: statelang.Failed, Failure: f}
	}
	for range tries(ctx, firstBackoff, maxBackoff) {
		found, f, err := o.opened(ctx, at)
		switch {
		case f != nil:
			return statelang.Event{Kind: statelang.Failed, Failure: f}
		case err != nil:
			return statelang.Event{}
		}
		body, err := io.ReadAll(io.LimitReader(found, statelang.MaxDataBytes+1))
		_ = found.Close()
		switch {
		case err != nil: // it went, or the store did
			o.again(ctx, err.Error())
			continue
		case len(body) > statelang.MaxDataBytes:
			return tooLarge(e.State)
		case !utf8.Valid(body):
			return failed(statelang.ErrRuntime, "the object is no text")
		}
		return statelang.Event{Kind: statelang.Succeeded, Output: jsontree.Of(
			"AcceptRanges", "bytes", "Body", string(body), "ContentLength", json.Number(fmt.Sprint(found.Size)), "ContentType", found.ContentType,
			"ETag", `"`+found.ETag+`"`, "LastModified", found.Stored.UTC().Format(time.RFC3339), "Metadata", &jsontree.Object{},
		)}
	}
	return statelang.Event{}
}

// putObject is arn:aws:states:::aws-sdk:s3:putObject: Bucket, Key, Body and ContentType. A Body that is no text is stored as JSON.
func (o *Orchestrator) putObject(ctx context.Context, id ID, e statelang.Effect) statelang.Event {
	input, _ := e.Input.(*jsontree.Object)
	at, f := o.objectOf(id, input)
	if f != nil {
		return statelang.Event{Kind: statelang.Failed, Failure: f}
	}
	v, _ := valueOf(input, "Body")
	text, isText := v.(string)
	body, contentType := []byte(text), blob.DefaultContentType
	if !isText && v != nil {
		var err error
		if body, err = jsontree.Append(nil, v); err != nil {
			return failed("S3.S3Exception", "the Body is no JSON: "+err.Error())
		}
		contentType = jsonContent
	}
	if given, ok := textOf(input, "ContentType"); ok {
		contentType = given
	}
	info, f := o.stored(ctx, at, contentType, func() io.Reader { return bytes.NewReader(body) })
	if f != nil {
		return statelang.Event{Kind: statelang.Failed, Failure: f}
	}
	if info == nil {
		return statelang.Event{}
	}
	return statelang.Event{Kind: statelang.Succeeded, Output: jsontree.Of("ETag", `"`+info.ETag+`"`)}
}

// stored stores what content reads, again and again until it is; nil if ctx has ended before.
func (o *Orchestrator) stored(ctx context.Context, at object, contentType string, content func() io.Reader) (*blob.Info, *statelang.Failure) {
	for range tries(ctx, firstBackoff, maxBackoff) {
		info, err := o.cfg.Objects.Put(ctx, at.bucket.Key, at.stored, contentType, content(), at.bucket.Objects.MaxObject())
		switch {
		case err == nil:
			return &info, nil
		case errors.Is(err, blob.ErrTooLarge):
			return nil, statelang.NewFailure("S3.S3Exception", fmt.Sprintf("Your proposed upload exceeds the maximum allowed size: %d bytes, half of objects.maxBytes of the queue", at.bucket.Objects.MaxObject()))
		case errors.Is(err, blob.ErrMediaType), errors.Is(err, blob.ErrKey):
			return nil, statelang.NewFailure("S3.S3Exception", err.Error())
		}
		o.again(ctx, err.Error())
	}
	return nil, nil
}

// readItems is what an ItemReader asks for.
func (o *Orchestrator) readItems(ctx context.Context, id ID, e statelang.Effect) statelang.Event {
	unread := func(cause string) statelang.Event { return failed(statelang.ErrItemReader, cause) }
	if e.Resource.Action != "getObject" {
		return unread(e.Resource.Text + " can't read items here: s3:getObject can")
	}
	input, _ := e.Input.(*jsontree.Object)
	at, f := o.objectOf(id, input)
	if f != nil {
		return unread(*f.Cause)
	}
	for range tries(ctx, firstBackoff, maxBackoff) {
		found, f, err := o.opened(ctx, at)
		switch {
		case f != nil:
			return unread(*f.Cause)
		case err != nil:
			return statelang.Event{}
		}
		list, err := statelang.Items(found, items.Coding(at.key, ""), *e.Reader)
		_ = found.Close()
		if err == nil {
			return statelang.Event{Kind: statelang.Succeeded, Output: list}
		}
		if bad, ok := errors.AsType[*items.Error](err); !ok || bad.Kind != nil { // else the object could not be read now
			return unread(err.Error())
		}
		o.again(ctx, err.Error())
	}
	return statelang.Event{}
}

// writeResults is what a ResultWriter asks for: files of what succeeded and of what failed, and a manifest.
func (o *Orchestrator) writeResults(ctx context.Context, id ID, e statelang.Effect) statelang.Event {
	unwritten := func(cause string) statelang.Event { return failed(statelang.ErrResultWriter, cause) }
	if e.Resource.Action != "putObject" {
		return unwritten(e.Resource.Text + " can't write results: s3:putObject can")
	}
	input, _ := e.Input.(*jsontree.Object)
	bucket, _ := textOf(input, "Bucket")
	prefix, _ := textOf(input, "Prefix")
	run := callID(ctx, id, e.Call).String()
	m := items.Manifest{Bucket: bucket, MapRunARN: strings.Replace(id.ARN(), ":execution:", ":mapRun:", 1) + ":" + run}
	folder := items.Folder(prefix, m.MapRunARN)
	write := func(name, contentType string, content func(w io.Writer) error) (int64, *statelang.Failure) {
		at, f := o.objectOf(id, jsontree.Of("Bucket", bucket, "Key", folder+name))
		if f != nil {
			return 0, f
		}
		var b bytes.Buffer // they are in memory anyway
		if err := content(&b); err != nil {
			return 0, statelang.NewFailure(statelang.ErrResultWriter, err.Error())
		}
		_, f = o.stored(ctx, at, contentType, func() io.Reader { return bytes.NewReader(b.Bytes()) })
		return int64(b.Len()), f
	}
	results := make([]items.Result, len(e.Results))
	for i := range e.Results {
		results[i] = e.Results[i].AsItem()
		results[i].Name, results[i].ExecutionARN, results[i].StateMachineARN = fmt.Sprint(i), fmt.Sprintf("%s:%s:%d", id.ARN(), run, i), m.MapRunARN
	}
	for status, into := range map[items.Status]*[]items.File{items.Succeeded: &m.Succeeded, items.Failed: &m.Failed} {
		if !slices.ContainsFunc(results, func(r items.Result) bool { return r.Status == status }) {
			continue
		}
		name := items.FileName(status, 0, e.Writer.OutputType)
		size, f := write(name, jsonContent, func(w io.Writer) error {
			_, err := items.WriteFile(w, having(results, status), *e.Writer)
			return err
		})
		if f != nil {
			return unwritten(*f.Cause)
		}
		*into = []items.File{{Key: folder + name, Size: size}}
	}
	_, f := write(items.ManifestName, jsonContent, func(w io.Writer) error {
		text, err := jsontree.Append(nil, m.Document())
		if err == nil {
			_, err = w.Write(text)
		}
		return err
	})
	switch {
	case ctx.Err() != nil:
		return statelang.Event{}
	case f != nil:
		return unwritten(*f.Cause)
	}
	return statelang.Event{Kind: statelang.Succeeded, Output: m.Output(prefix)}
}

func having(results []items.Result, status items.Status) iter.Seq2[*items.Result, error] {
	return func(yield func(*items.Result, error) bool) {
		for i := range results {
			if results[i].Status == status && !yield(&results[i], nil) {
				return
			}
		}
	}
}
