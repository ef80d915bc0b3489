// Package items reads the items that a distributed Map state of the Amazon States Language takes from an object
// (ItemReader), and writes the files of its results (ResultWriter).
//
// Invariants: an object is read once and in order, and memory is bounded by one item however large the object is, also if it
// is compressed; what is read doesn't depend on how its reader cuts it; every error says where. Results are written as they
// come.
//
// The data flows through the files in this order: items.go (what to read), window.go (the text in memory), json.go, lines.go
// and csv.go (its items), objects.go (a list of objects as items), results.go (back into files). Where AWS's documentation and
// the recorded executions are silent, a comment says "our choice".
//
// May import: jsontree and coding.
package items

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"path"
	"strconv"
	"strings"

	"github.com/weir-dev/weir/internal/coding"
)

// Types of objects, and of files of results.
const (
	JSON  = "JSON"  // an array, or one in it
	JSONL = "JSONL" // JSON Lines: an item a line
	CSV   = "CSV"   // text with delimiters: an item a row
)

// Bounds. The first, the third and the fourth are AWS's (user guide: "ItemReader (Map)").
const (
	// MaxItems is after how many items reading stops in any case.
	MaxItems = 100_000_000
	// DefaultMaxItemBytes is Config.MaxItemBytes': what the input of an execution may have.
	DefaultMaxItemBytes = 256 << 10
	// MaxItemBytes is the most that Config.MaxItemBytes can be: for items that an ItemSelector makes smaller.
	MaxItemBytes = 8 << 20
	// MaxHeaderBytes bounds the names of a CSV's columns.
	MaxHeaderBytes = 10 << 10
	// textPerItem is how many times longer than its bound the text of an item may be: for blanks and escapes in it.
	textPerItem = 4
)

// NotIterable is what AWS says of a JSON object that has no array where it should be (recorded).
const NotIterable = "Attempting to map over non-iterable node."

// What may be wrong with an object; an Error has one of them.
var (
	// ErrNotArray means that the object's JSON is no array.
	ErrNotArray = errors.New("items: not an array")
	// ErrPointer means that ItemsPointer leads nowhere.
	ErrPointer = errors.New("items: nothing at the pointer")
	// ErrSyntax means that the object is not of its type, or is damaged.
	ErrSyntax = errors.New("items: malformed object")
	// ErrHeader means that a CSV's first row can't name the columns.
	ErrHeader = errors.New("items: no header")
	// ErrTooLarge means that an item is larger than it may be.
	ErrTooLarge = errors.New("items: item too large")
)

// Error is why reading ended early. Its text is the cause to tell with States.ItemReaderFailed.
type Error struct {
	Kind   error // one of this package's; nil if the object could not be read
	Item   int64 // the item's index, from 0; -1 if it is about no item
	Offset int64 // bytes of the object before the item, or before what it is about; of a compressed one: decompressed
	text   string
	err    error // the reader's; nil if there is none
}

// Error implements error.
func (e *Error) Error() string {
	switch {
	case errors.Is(e.Kind, ErrNotArray):
		return NotIterable
	case e.Item >= 0:
		return fmt.Sprintf("item %d, at byte %d of the object: %s", e.Item, e.Offset, e.text)
	default:
		return fmt.Sprintf("at byte %d of the object: %s", e.Offset, e.text)
	}
}

// Unwrap gives the kind and the reader's error.
func (e *Error) Unwrap() []error {
	var list []error
	for _, err := range []error{e.Kind, e.err} {
		if err != nil {
			list = append(list, err)
		}
	}
	return list
}

// Permanent reports whether the object itself is to blame: reading it again ends in the same error.
func Permanent(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Kind != nil
}

// Config is how an object is read: the fields of ReaderConfig, and what the object itself says.
type Config struct {
	InputType    string   // JSON, JSONL or CSV; default: JSON
	ItemsPointer string   // where in the JSON the array is (RFC 6901); empty: the whole is one
	Headers      []string // names of a CSV's columns; nil: the first row names them
	Delimiter    rune     // of a CSV: , | ; space or tab; default: a comma
	Coding       string   // gzip or zstd; empty: none. See Coding
	MaxItems     int      // stop after so many; 0: after MaxItems
	MaxItemBytes int      // of one item, as JSON without blanks; 0: DefaultMaxItemBytes
}

func (c Config) withDefaults() Config {
	if c.InputType == "" {
		c.InputType = JSON
	}
	if c.Delimiter == 0 {
		c.Delimiter = ','
	}
	if c.MaxItems == 0 || c.MaxItems > MaxItems {
		c.MaxItems = MaxItems
	}
	if c.MaxItemBytes == 0 {
		c.MaxItemBytes = DefaultMaxItemBytes
	}
	return c
}

// Validate names the field that can't be, and what to write.
func (c Config) Validate() error {
	c = c.withDefaults()
	names := 0
	for _, h := range c.Headers {
		names += len(h) + 1
	}
	_, pointer := tokens(c.ItemsPointer)
	switch {
	case c.InputType != JSON && c.InputType != JSONL && c.InputType != CSV:
		return fmt.Errorf("InputType is %q: it must be JSON, JSONL or CSV", c.InputType)
	case pointer != nil:
		return fmt.Errorf("ItemsPointer %q %w", c.ItemsPointer, pointer)
	case c.ItemsPointer != "" && c.InputType != JSON:
		return fmt.Errorf("ItemsPointer is for JSON: leave it out with %s", c.InputType)
	case c.Headers != nil && len(c.Headers) == 0:
		return errors.New("CSVHeaders is empty: it must name the columns")
	case names > MaxHeaderBytes:
		return fmt.Errorf("CSVHeaders has more than %d bytes: use shorter names", MaxHeaderBytes)
	case !strings.ContainsRune(",|; \t", c.Delimiter):
		return fmt.Errorf("CSVDelimiter is %q: it must be a comma, |, a semicolon, a space or a tab", c.Delimiter)
	case c.MaxItems < 0:
		return fmt.Errorf("MaxItems is %d: it must be 0 or more", c.MaxItems)
	case c.MaxItemBytes < 0 || c.MaxItemBytes > MaxItemBytes:
		return fmt.Errorf("MaxItemBytes is %d: it must be at most %d", c.MaxItemBytes, MaxItemBytes)
	}
	return nil
}

// Coding is the compression of an object of that key and Content-Encoding, which may be empty: Config.Coding. AWS's user guide
// names GZIP and ZSTD, with the examples myObject.jsonl.gz and myObject.csv.zstd. The other endings are our choice, and that a
// Content-Encoding comes before the key.
func Coding(key, contentEncoding string) string {
	for part := range strings.SplitSeq(contentEncoding, ",") {
		switch name := strings.ToLower(strings.TrimSpace(part)); name {
		case "", "identity", "aws-chunked": // the last is of a transfer, which some clients have stored, too
		case "x-gzip":
			return "gzip"
		default:
			return name
		}
	}
	switch strings.ToLower(path.Ext(key)) {
	case ".gz", ".gzip":
		return "gzip"
	case ".zst", ".zstd":
		return "zstd"
	}
	return ""
}

// format has the items of one object: next returns errEnd after the last.
type format interface{ next() (any, error) }

// Read gives the items of the object that r reads, values as of package jsontree. It can be gone through once, and stops
// reading with the last item that is taken: nothing is known of what follows MaxItems. An error, an *Error unless the
// configuration is wrong, is the last that it gives. A wrong configuration is an error that is none of the object.
func Read(r io.Reader, c Config) iter.Seq2[any, error] {
	return func(yield func(any, error) bool) {
		if err := c.Validate(); err != nil {
			yield(nil, err)
			return
		}
		c := c.withDefaults()
		source := &source{r: r}
		body, err := coding.NewReader(c.Coding, source)
		if err != nil || c.Coding == "deflate" { // which coding has for HTTP
			yield(nil, &Error{
				Kind: ErrSyntax, Item: -1, err: err,
				text: fmt.Sprintf("the object's compression is %.64q: it must be gzip, zstd or none", c.Coding),
			})
			return
		}
		defer func() { _ = body.Close() }()
		w := newWindow(body, source, textPerItem*c.MaxItemBytes)
		list, err := c.begin(w)
		for n := 0; err == nil && n < c.MaxItems; n++ {
			var v any
			if v, err = list.next(); err == nil && !yield(v, nil) {
				return
			}
			w.item++
		}
		if err != nil && !errors.Is(err, errEnd) {
			yield(nil, err)
		}
	}
}

func (c Config) begin(w *window) (format, error) {
	if err := w.skipMark(); err != nil {
		return nil, err
	}
	switch c.InputType {
	case JSONL:
		w.item = 0
		return &lines{w: w, max: c.MaxItemBytes}, nil
	case CSV:
		r := &rows{w: w, max: c.MaxItemBytes, delimiter: byte(c.Delimiter)}
		return r, r.begin(c.Headers)
	default:
		a := &array{w: w, max: c.MaxItemBytes, nested: c.ItemsPointer != ""}
		path, err := tokens(c.ItemsPointer)
		if err != nil {
			return nil, err // Validate has looked
		}
		return a, a.begin(path)
	}
}

// tokens are the parts of a JSON pointer (RFC 6901, section 3).
func tokens(pointer string) ([]string, error) {
	if pointer == "" {
		return nil, nil
	}
	if pointer[0] != '/' {
		return nil, errors.New("must begin with /, as /inventory/products")
	}
	list := strings.Split(pointer[1:], "/")
	for i, t := range list {
		bare := strings.ReplaceAll(strings.ReplaceAll(t, "~0", ""), "~1", "")
		if strings.Contains(bare, "~") {
			return nil, errors.New("has a ~ that is neither ~0 for ~ nor ~1 for /")
		}
		list[i] = strings.ReplaceAll(strings.ReplaceAll(t, "~1", "/"), "~0", "~")
	}
	return list, nil
}

// place is a token as a place in an array (RFC 6901, section 4); ok is false if it is none.
func place(token string) (i int, ok bool) {
	i, err := strconv.Atoi(token)
	return i, err == nil && i >= 0 && token == strconv.Itoa(i)
}
