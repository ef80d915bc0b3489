package statelang

import (
	"errors"
	"fmt"
	"io"

	"github.com/weir-dev/weir/internal/items"
	"github.com/weir-dev/weir/internal/jsontree"
)

// MaxItemsBytes bounds the items of a map, as JSON: they are in memory, and are kept with the execution.
const MaxItemsBytes = 8 << 20

// ErrTooManyItems means that the items of an object are too large to be kept together.
var ErrTooManyItems = errors.New("the items are too many")

// ReaderConfig is how the items of an object are read.
type ReaderConfig struct {
	InputType    string   // JSON, JSONL or CSV; JSON if empty
	ItemsPointer string   // where in the JSON the array is; the whole is one if empty
	FirstRow     bool     // a CSV's first row names its columns
	Headers      []string // otherwise these do
	Delimiter    rune
	MaxItems     int // 0: all
}

// MapResult is what has become of an iteration whose results are written.
type MapResult struct {
	Input   any
	Output  any
	Failure *Failure // nil if it succeeded
}

func (c *readerConfig) asPublic() ReaderConfig {
	return ReaderConfig{InputType: c.inputType, ItemsPointer: c.pointer, FirstRow: c.firstRow, Headers: c.headers, Delimiter: c.delimiter}
}

// Items reads the items of an object: an array, or no array if the object is JSON of another kind. coding is the object's, as
// items.Coding gives it.
func Items(object io.Reader, coding string, c ReaderConfig) (any, error) {
	config := items.Config{InputType: c.InputType, ItemsPointer: c.ItemsPointer, Delimiter: c.Delimiter, Coding: coding, MaxItems: c.MaxItems}
	if !c.FirstRow {
		config.Headers = c.Headers
	}
	list, size := []any{}, 0
	for v, err := range items.Read(object, config) {
		if errors.Is(err, items.ErrNotArray) {
			return nil, nil //nolint:nilnil // no array
		}
		if err != nil {
			return nil, err
		}
		if size += jsontree.Size(v) + 1; size > MaxItemsBytes {
			return nil, fmt.Errorf("%w: more than %d bytes; MaxItems reads fewer", ErrTooManyItems, MaxItemsBytes)
		}
		list = append(list, v)
	}
	return list, nil
}
