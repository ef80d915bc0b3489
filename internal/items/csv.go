package items

import (
	"errors"
	"strings"

	"github.com/weir-dev/weir/internal/jsontree"
)

// rows are the items of a text with delimiters. AWS's rules (user guide: "ItemReader (Map)", recorded executions):
//
//   - Newlines end rows. Every value is a text.
//   - A row's missing values are empty, those beyond the columns are left out. A row that has blanks only is one.
//   - Quotation marks around a value may hold delimiters and newlines.
//   - Two quotation marks in a value are one, also in a value that none are around.
//   - A backslash before a backslash, a quotation mark or a delimiter stands for that; any other is removed.
//
// Our choices, where those are silent: a row without any character is none; \r\n is a newline, and in a value it is \n; blanks
// around a value's quotation marks are left out; a single quotation mark inside of a value, or with more after it, stands for
// itself; one that is never closed is an error; of columns with one name the last counts; what is no UTF-8 becomes U+FFFD. AWS
// says that backslashes before quotation marks work in pairs only: here they always do.
type rows struct {
	w         *window
	max       int
	delimiter byte
	names     []string
	fixed     int    // bytes of an item whose values are empty
	text      []byte // the values of a row, one after another
	ends      []int  // of each in text
}

// begin finds the names of the columns.
func (r *rows) begin(names []string) error {
	if names == nil {
		switch size, err := r.row(); {
		case errors.Is(err, errEnd):
			return r.w.fail(ErrHeader, "there is no first row to name the columns")
		case err != nil:
			return err
		case size > MaxHeaderBytes:
			return r.w.fail(ErrHeader, "the first row, which names the columns, has more than %d bytes", MaxHeaderBytes)
		default:
			names = r.values()
			r.w.skip(size)
		}
	}
	r.names = names
	r.fixed = len("{}")
	for _, n := range names {
		r.fixed += jsontree.Size(n) + len(`:"",`)
	}
	r.w.item = 0
	return nil
}

// next implements format.
func (r *rows) next() (any, error) {
	size, err := r.row()
	if err != nil {
		return nil, err
	}
	values := r.values()
	o := jsontree.NewObject(len(r.names))
	for i, name := range r.names {
		value := ""
		if i < len(values) {
			value = values[i]
		}
		o.Set(name, value)
	}
	const longest = len(`\u0000`) // that a byte becomes in JSON
	if r.fixed+longest*len(r.text) > r.max && jsontree.Size(o) > r.max {
		return nil, r.w.tooLarge()
	}
	r.w.skip(size)
	return o, nil
}

// values are those of the row, as far as there are names for them.
func (r *rows) values() []string {
	n := len(r.ends)
	if r.names != nil {
		n = min(n, len(r.names))
	}
	values := make([]string, n)
	all, from := string(r.text), 0
	for i := range values {
		values[i] = strings.ToValidUTF8(all[from:r.ends[i]], "\ufffd")
		from = r.ends[i]
	}
	return values
}

// row reads the row that begins here, past empty ones, into text and ends. It doesn't take it: size is its length.
func (r *rows) row() (size int, err error) {
	r.text, r.ends = r.text[:0], r.ends[:0]
	for quoted := false; ; {
		line, n, err := r.w.line(size)
		switch {
		case errors.Is(err, errEnd) && quoted:
			return 0, r.w.fail(ErrSyntax, "it ends within quotation marks")
		case err != nil:
			return 0, err
		case size == 0 && len(line) == 0:
			r.w.skip(n)
			continue
		}
		size += n
		if quoted = r.line(line, quoted); !quoted {
			return size, nil
		}
		r.text = append(r.text, '\n')
	}
}

// line takes a line of the row, and reports whether it ends within quotation marks.
func (r *rows) line(line []byte, quoted bool) (open bool) {
	start := !quoted // of a value
	for i := 0; i < len(line); {
		if start {
			start = false
			if j := r.pastBlanks(line, i); j < len(line) && line[j] == '"' {
				quoted, i = true, j+1
				continue
			}
		}
		c := line[i]
		next := byte(0)
		if i+1 < len(line) {
			next = line[i+1]
		}
		switch {
		case c == '\\':
			i++
			if next == '\\' || next == '"' || next == r.delimiter {
				r.text = append(r.text, next)
				i++
			}
		case c == '"' && next == '"':
			r.text = append(r.text, c)
			i += 2
		case c == '"' && quoted:
			quoted = false
			if j := r.pastBlanks(line, i+1); j == len(line) || line[j] == r.delimiter {
				i = j
				continue
			}
			r.text = append(r.text, c)
			i++
		case c == r.delimiter && !quoted:
			r.ends = append(r.ends, len(r.text))
			start = true
			i++
		default:
			j := i + 1
			for j < len(line) && line[j] != '"' && line[j] != '\\' && line[j] != r.delimiter {
				j++
			}
			r.text = append(r.text, line[i:j]...)
			i = j
		}
	}
	if !quoted {
		r.ends = append(r.ends, len(r.text))
	}
	return quoted
}

// pastBlanks is the first place from i on that has no blank; a delimiter is none.
func (r *rows) pastBlanks(line []byte, i int) int {
	for i < len(line) && (line[i] == ' ' || line[i] == '\t') && line[i] != r.delimiter {
		i++
	}
	return i
}
