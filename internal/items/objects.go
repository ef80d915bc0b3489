package items

import (
	"encoding/json"
	"iter"
	"strconv"
	"strings"
	"time"

	"github.com/weir-dev/weir/internal/jsontree"
)

// Object is one of a list of objects (S3's ListObjectsV2).
type Object struct {
	Key          string
	Size         int64 // bytes
	LastModified time.Time
	ETag         string
	StorageClass string // default: STANDARD
}

// Item is the object as an item: {"Etag": "\"…\"", "Key": …, "LastModified": seconds since 1970, "Size": bytes, "StorageClass": …},
// as the user guide's "ItemReader (Map)" shows it: Etag with a small t, and with its quotation marks.
func (o Object) Item() *jsontree.Object {
	class := o.StorageClass
	if class == "" {
		class = "STANDARD"
	}
	return jsontree.Of(
		"Etag", `"`+strings.Trim(o.ETag, `"`)+`"`,
		"Key", o.Key,
		"LastModified", integer(o.LastModified.Unix()),
		"Size", integer(o.Size),
		"StorageClass", class,
	)
}

func integer(n int64) json.Number { return json.Number(strconv.FormatInt(n, 10)) }

// List gives a list of objects as items: at most maxItems of them, or MaxItems if it is 0. An error of the list is the last
// that it gives.
func List(objects iter.Seq2[Object, error], maxItems int) iter.Seq2[any, error] {
	if maxItems <= 0 || maxItems > MaxItems {
		maxItems = MaxItems
	}
	return func(yield func(any, error) bool) {
		n := 0
		for o, err := range objects {
			if err != nil {
				yield(nil, &Error{Item: int64(n), text: "the objects could not be listed: " + err.Error(), err: err})
				return
			}
			if !yield(o.Item(), nil) {
				return
			}
			if n++; n == maxItems {
				return
			}
		}
	}
}
