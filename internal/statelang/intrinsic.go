package statelang

import (
	"crypto/md5"  //nolint:gosec // States.Hash has MD5 and SHA-1, for what is no secret
	"crypto/sha1" //nolint:gosec // the same
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/weir-dev/weir/internal/jsonpath"
	"github.com/weir-dev/weir/internal/jsontree"
)

// Bounds of the intrinsic functions (user guide, "Intrinsics for JSONPath states").
const (
	maxIntrinsicDepth = 10 // calls in each other
	maxRangeItems     = 1000
	maxBase64Chars    = 10_000
	maxHashChars      = 10_000
	intrinsicPrefix   = "States."
)

// intrinsic is a function of the language.
type intrinsic struct {
	least, most int // arguments
	call        func(e *env, args []any) (any, error)
}

// intrinsicOf returns the function of a name without "States.".
func intrinsicOf(name string) (intrinsic, bool) {
	switch name {
	case "Format":
		return intrinsic{1, math.MaxInt, formatText}, true
	case "StringToJson":
		return intrinsic{1, 1, stringToJSON}, true
	case "JsonToString":
		return intrinsic{1, 1, jsonToString}, true
	case "Array":
		return intrinsic{0, math.MaxInt, func(_ *env, args []any) (any, error) { return args, nil }}, true
	case "ArrayPartition":
		return intrinsic{2, 2, arrayPartition}, true
	case "ArrayContains":
		return intrinsic{2, 2, arrayContains}, true
	case "ArrayRange":
		return intrinsic{3, 3, arrayRange}, true
	case "ArrayGetItem":
		return intrinsic{2, 2, arrayGetItem}, true
	case "ArrayLength":
		return intrinsic{1, 1, arrayLength}, true
	case "ArrayUnique":
		return intrinsic{1, 1, arrayUnique}, true
	case "Base64Encode":
		return intrinsic{1, 1, base64Encode}, true
	case "Base64Decode":
		return intrinsic{1, 1, base64Decode}, true
	case "Hash":
		return intrinsic{2, 2, hashText}, true
	case "JsonMerge":
		return intrinsic{3, 3, jsonMerge}, true
	case "MathRandom":
		return intrinsic{2, 3, mathRandom}, true
	case "MathAdd":
		return intrinsic{2, 2, mathAdd}, true
	case "StringSplit":
		return intrinsic{2, 2, stringSplit}, true
	case "UUID":
		return intrinsic{0, 0, func(e *env, _ []any) (any, error) { return newUUID(e.random()), nil }}, true
	}
	return intrinsic{}, false
}

// callExpr is a call of an intrinsic function.
type callExpr struct {
	field string
	name  string
	fn    intrinsic
	args  []expr
}

func (c *callExpr) eval(e *env) (any, error) {
	args := make([]any, len(c.args))
	for i, a := range c.args {
		v, err := a.eval(e)
		if err != nil {
			return nil, err
		}
		args[i] = v
	}
	v, err := c.fn.call(e, args)
	if err != nil {
		return nil, NewFailure(ErrIntrinsic, fmt.Sprintf("%s%s, in the field '%s': %v", intrinsicPrefix, c.name, c.field, err)).asError()
	}
	return v, nil
}

// parseIntrinsic reads a call such as States.Format('{}', $.name). Its error says what is wrong and where.
func parseIntrinsic(text, field string) (expr, error) {
	c, rest, err := parseCall(text, field, 1)
	if err != nil {
		return nil, err
	}
	if rest = strings.TrimLeft(rest, " "); rest != "" {
		return nil, fmt.Errorf("after the call stands %q", rest)
	}
	return c, nil
}

func parseCall(text, field string, depth int) (*callExpr, string, error) {
	if depth > maxIntrinsicDepth {
		return nil, "", fmt.Errorf("more than %d calls are in each other", maxIntrinsicDepth)
	}
	full, rest, ok := strings.Cut(text, "(")
	name, prefixed := strings.CutPrefix(strings.TrimRight(full, " "), intrinsicPrefix)
	fn, known := intrinsicOf(name)
	switch {
	case !ok:
		return nil, "", fmt.Errorf("%.60q has no opening parenthesis", text)
	case !prefixed || !known:
		return nil, "", fmt.Errorf("there is no function %.60q", full)
	}
	c := &callExpr{field: field, name: name, fn: fn}
	rest = strings.TrimLeft(rest, " ")
	if after, ok := strings.CutPrefix(rest, ")"); ok {
		return c, after, c.check()
	}
	for {
		var arg expr
		var err error
		if arg, rest, err = parseArgument(rest, field, depth); err != nil {
			return nil, "", err
		}
		c.args = append(c.args, arg)
		rest = strings.TrimLeft(rest, " ")
		if after, ok := strings.CutPrefix(rest, ")"); ok {
			return c, after, c.check()
		}
		after, ok := strings.CutPrefix(rest, ",")
		if !ok {
			return nil, "", fmt.Errorf("a comma or a closing parenthesis must stand before %.40q", rest)
		}
		rest = strings.TrimLeft(after, " ")
	}
}

// check holds the number of arguments, and what of them is known before the call.
func (c *callExpr) check() error {
	for i := range c.args {
		if text, ok := c.literal(i).(string); ok && (c.name != "Format" || i > 0) {
			c.args[i] = literal{unescaped(text)}
		}
	}
	if n := len(c.args); n < c.fn.least || n > c.fn.most {
		want := strconv.Itoa(c.fn.least)
		switch {
		case c.fn.most == math.MaxInt:
			want += " or more"
		case c.fn.most != c.fn.least:
			want += " to " + strconv.Itoa(c.fn.most)
		}
		return fmt.Errorf("%s%s takes %s arguments, not %d", intrinsicPrefix, c.name, want, n)
	}
	if text, ok := c.literal(0).(string); ok && c.name == "Format" {
		pieces, err := formatPieces(text)
		if err != nil {
			return err
		}
		if len(pieces)-1 != len(c.args)-1 {
			return fmt.Errorf("States.Format has %d places {} and %d values for them", len(pieces)-1, len(c.args)-1)
		}
	}
	return nil
}

func (c *callExpr) literal(i int) any {
	if i < len(c.args) {
		if l, ok := c.args[i].(literal); ok {
			return l.value
		}
	}
	return nil
}

func parseArgument(text, field string, depth int) (expr, string, error) {
	switch {
	case strings.HasPrefix(text, "'"):
		value, rest, err := parseQuoted(text)
		return literal{value}, rest, err
	case strings.HasPrefix(text, "$"):
		p, rest, err := jsonpath.ParsePrefix(text)
		if err != nil {
			return nil, "", err
		}
		return &pathExpr{field: field, path: p}, rest, nil
	case strings.HasPrefix(text, intrinsicPrefix):
		return unwrapCall(parseCall(text, field, depth+1))
	}
	end := strings.IndexAny(text, ",) ")
	if end < 0 {
		end = len(text)
	}
	word, rest := text[:end], text[end:]
	switch word {
	case "true":
		return literal{true}, rest, nil
	case "false":
		return literal{false}, rest, nil
	case "null":
		return literal{nil}, rest, nil
	case "":
		return nil, "", fmt.Errorf("an argument is missing before %.40q", text)
	}
	if v, err := jsontree.Parse([]byte(word)); err == nil {
		if n, ok := v.(json.Number); ok {
			return literal{n}, rest, nil
		}
	}
	return nil, "", fmt.Errorf("%.40q is no argument: a path, a number, a 'text', true, false, null or a call", word)
}

func unwrapCall(c *callExpr, rest string, err error) (expr, string, error) {
	if err != nil {
		return nil, "", err
	}
	return c, rest, nil
}

// parseQuoted reads a text between single quotes. A backslash escapes a quote, a brace and itself; those before braces and
// backslashes stay, for States.Format: unescaped takes them away.
func parseQuoted(text string) (value, rest string, err error) {
	var b strings.Builder
	for i := 1; i < len(text); i++ {
		switch c := text[i]; c {
		case '\'':
			return b.String(), text[i+1:], nil
		case '\\':
			if i+1 == len(text) {
				return "", "", fmt.Errorf("the text %.40q does not end", text)
			}
			i++
			switch next := text[i]; next {
			case '\'':
				b.WriteByte(next)
			case '{', '}', '\\':
				b.WriteByte('\\')
				b.WriteByte(next)
			default:
				return "", "", fmt.Errorf(`the text %.40q has \%c: only ', {, } and \ are escaped so`, text, next)
			}
		default:
			b.WriteByte(c)
		}
	}
	return "", "", fmt.Errorf("the text %.40q does not end", text)
}

func unescaped(text string) string {
	return strings.NewReplacer(`\{`, "{", `\}`, "}", `\\`, `\`).Replace(text)
}

// formatPieces splits a template at its {}.
func formatPieces(template string) ([]string, error) {
	var pieces []string
	var b strings.Builder
	for i := 0; i < len(template); i++ {
		switch c := template[i]; {
		case c == '\\' && i+1 < len(template):
			i++
			b.WriteByte(template[i])
		case c == '{' && i+1 < len(template) && template[i+1] == '}':
			i++
			pieces = append(pieces, b.String())
			b.Reset()
		case c == '{' || c == '}':
			return nil, fmt.Errorf(`the template %.60q has a single %c: \%c is one that stays`, template, c, c)
		default:
			b.WriteByte(c)
		}
	}
	return append(pieces, b.String()), nil
}

func formatText(_ *env, args []any) (any, error) {
	template, ok := args[0].(string)
	if !ok {
		return nil, fmt.Errorf("the template is %s and not a text", kindOf(args[0]))
	}
	pieces, err := formatPieces(template)
	if err != nil {
		return nil, err
	}
	if len(pieces) != len(args) {
		return nil, fmt.Errorf("the template has %d places {} and there are %d values for them", len(pieces)-1, len(args)-1)
	}
	var b strings.Builder
	b.WriteString(pieces[0])
	for i, v := range args[1:] {
		text, ok := v.(string)
		if !ok {
			j, err := jsontree.Append(nil, v)
			if err != nil {
				return nil, err
			}
			text = string(j)
		}
		b.WriteString(text)
		b.WriteString(pieces[i+1])
	}
	return b.String(), nil
}

func stringToJSON(_ *env, args []any) (any, error) {
	text, ok := args[0].(string)
	if !ok {
		return nil, fmt.Errorf("%s is no text", kindOf(args[0]))
	}
	if strings.TrimSpace(text) == "" {
		return nil, nil
	}
	v, err := jsontree.Parse([]byte(text))
	if err != nil {
		return nil, fmt.Errorf("the text is no JSON: %w", err)
	}
	return v, nil
}

func jsonToString(_ *env, args []any) (any, error) {
	text, err := jsontree.Append(nil, args[0])
	return string(text), err
}

func arrayPartition(_ *env, args []any) (any, error) {
	list, err := array(args[0])
	if err != nil {
		return nil, err
	}
	size, err := integer(args[1])
	if err != nil {
		return nil, err
	}
	if size < 1 {
		return nil, fmt.Errorf("the size of a part is %d: it must be 1 or more", size)
	}
	parts := []any{}
	for len(list) > 0 {
		n := min(size, int64(len(list)))
		parts = append(parts, list[:n:n])
		list = list[n:]
	}
	return parts, nil
}

func arrayContains(_ *env, args []any) (any, error) {
	list, err := array(args[0])
	if err != nil {
		return nil, err
	}
	for _, v := range list {
		if jsontree.Equal(v, args[1]) {
			return true, nil
		}
	}
	return false, nil
}

func arrayRange(_ *env, args []any) (any, error) {
	var n [3]int64
	for i := range n {
		var err error
		if n[i], err = integer(args[i]); err != nil {
			return nil, err
		}
	}
	first, last, step := n[0], n[1], n[2]
	if step == 0 {
		return nil, fmt.Errorf("the step is 0")
	}
	list := []any{}
	for v := first; step > 0 && v <= last || step < 0 && v >= last; v += step {
		if len(list) == maxRangeItems {
			return nil, fmt.Errorf("the range has more than %d items", maxRangeItems)
		}
		list = append(list, json.Number(strconv.FormatInt(v, 10)))
		if next := v + step; step > 0 && next < v || step < 0 && next > v {
			break // beyond what an integer holds
		}
	}
	return list, nil
}

func arrayGetItem(_ *env, args []any) (any, error) {
	list, err := array(args[0])
	if err != nil {
		return nil, err
	}
	i, err := integer(args[1])
	if err != nil {
		return nil, err
	}
	if i < 0 || i >= int64(len(list)) {
		return nil, fmt.Errorf("there is no item %d: the array has %d", i, len(list))
	}
	return list[i], nil
}

func arrayLength(_ *env, args []any) (any, error) {
	list, err := array(args[0])
	if err != nil {
		return nil, err
	}
	return json.Number(strconv.Itoa(len(list))), nil
}

func arrayUnique(_ *env, args []any) (any, error) {
	list, err := array(args[0])
	if err != nil {
		return nil, err
	}
	return unique(list), nil
}

func unique(list []any) []any {
	seen := make(map[string]bool, len(list))
	made := []any{}
	for _, v := range list {
		key := jsontree.Canonical(nil, v)
		if !seen[string(key)] {
			seen[string(key)] = true
			made = append(made, v)
		}
	}
	return made
}

func base64Encode(_ *env, args []any) (any, error) {
	text, err := shortText(args[0], maxBase64Chars)
	if err != nil {
		return nil, err
	}
	return base64.StdEncoding.EncodeToString([]byte(text)), nil
}

func base64Decode(_ *env, args []any) (any, error) {
	text, err := shortText(args[0], maxBase64Chars)
	if err != nil {
		return nil, err
	}
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, fmt.Errorf("the text is not Base64: %w", err)
	}
	return strings.ToValidUTF8(string(b), "\ufffd"), nil
}

func hashText(_ *env, args []any) (any, error) {
	text, ok := args[0].(string)
	if !ok {
		j, err := jsontree.Append(nil, args[0])
		if err != nil {
			return nil, err
		}
		text = string(j)
	}
	name, ok := args[1].(string)
	if !ok {
		return nil, fmt.Errorf("the algorithm is %s and not a text", kindOf(args[1]))
	}
	if utf8.RuneCountInString(text) > maxHashChars {
		return nil, fmt.Errorf("what is to be hashed is longer than %d characters", maxHashChars)
	}
	return digest(text, name)
}

func digest(text, algorithm string) (string, error) {
	var sum []byte
	switch algorithm {
	case "MD5":
		s := md5.Sum([]byte(text)) //nolint:gosec // as documented
		sum = s[:]
	case "SHA-1":
		s := sha1.Sum([]byte(text)) //nolint:gosec // as documented
		sum = s[:]
	case "SHA-256":
		s := sha256.Sum256([]byte(text))
		sum = s[:]
	case "SHA-384":
		s := sha512.Sum384([]byte(text))
		sum = s[:]
	case "SHA-512":
		s := sha512.Sum512([]byte(text))
		sum = s[:]
	default:
		return "", fmt.Errorf("there is no algorithm %.40q: MD5, SHA-1, SHA-256, SHA-384 or SHA-512", algorithm)
	}
	return hex.EncodeToString(sum), nil
}

func jsonMerge(_ *env, args []any) (any, error) {
	a, ok := args[0].(*jsontree.Object)
	b, both := args[1].(*jsontree.Object)
	deep, flag := args[2].(bool)
	switch {
	case !ok || !both:
		return nil, fmt.Errorf("only objects are merged, and there are %s and %s", kindOf(args[0]), kindOf(args[1]))
	case !flag:
		return nil, fmt.Errorf("the third argument is %s and not true or false", kindOf(args[2]))
	case deep:
		return nil, fmt.Errorf("the third argument must be false: there is no deep merge")
	}
	made := a.Clone()
	for k, v := range b.All() {
		made.Set(k, v)
	}
	return made, nil
}

func mathRandom(e *env, args []any) (any, error) {
	first, err := integer(args[0])
	if err != nil {
		return nil, err
	}
	end, err := integer(args[1])
	if err != nil {
		return nil, err
	}
	r := e.random()
	if len(args) == 3 && args[2] != nil {
		seed, err := integer(args[2])
		if err != nil {
			return nil, err
		}
		r = rand.New(rand.NewPCG(uint64(seed), 0)) // it is to be the same for the same seed
	}
	if end <= first || end-first < 0 {
		return nil, fmt.Errorf("the end, %d, must be greater than the start, %d", end, first)
	}
	return json.Number(strconv.FormatInt(first+r.Int64N(end-first), 10)), nil
}

func mathAdd(_ *env, args []any) (any, error) {
	a, err := integer(args[0])
	if err != nil {
		return nil, err
	}
	b, err := integer(args[1])
	if err != nil {
		return nil, err
	}
	if sum := a + b; (sum > a) == (b > 0) || b == 0 {
		return json.Number(strconv.FormatInt(sum, 10)), nil
	}
	return nil, fmt.Errorf("%d and %d are more than an integer holds", a, b)
}

// stringSplit splits at each of the delimiter's characters; empty pieces are left out.
func stringSplit(_ *env, args []any) (any, error) {
	text, ok := args[0].(string)
	delimiters, both := args[1].(string)
	if !ok || !both {
		return nil, fmt.Errorf("%s and %s are not two texts", kindOf(args[0]), kindOf(args[1]))
	}
	pieces := []any{}
	for piece := range strings.FieldsFuncSeq(text, func(r rune) bool { return strings.ContainsRune(delimiters, r) }) {
		pieces = append(pieces, piece)
	}
	return pieces, nil
}

// newUUID makes a version 4 UUID (RFC 9562).
func newUUID(r *rand.Rand) string {
	var b [16]byte
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

func array(v any) ([]any, error) {
	list, ok := v.([]any)
	if !ok {
		return nil, fmt.Errorf("%s is no array", kindOf(v))
	}
	return list, nil
}

// integer is the number, rounded as AWS does.
func integer(v any) (int64, error) {
	if n, ok := v.(json.Number); ok {
		if i, err := n.Int64(); err == nil {
			return i, nil
		}
	}
	f, ok := jsontree.Float(v)
	if !ok {
		return 0, fmt.Errorf("%s is no number", kindOf(v))
	}
	f = math.Round(f)
	if f < -(1<<63) || f >= 1<<63 || math.IsNaN(f) {
		return 0, fmt.Errorf("%v is more than an integer holds", f)
	}
	return int64(f), nil
}

func shortText(v any, most int) (string, error) {
	text, ok := v.(string)
	if !ok {
		return "", fmt.Errorf("%s is no text", kindOf(v))
	}
	if utf8.RuneCountInString(text) > most {
		return "", fmt.Errorf("the text is longer than %d characters", most)
	}
	return text, nil
}

// kindOf names the kind of a value for people.
func kindOf(v any) string {
	switch v.(type) {
	case nil:
		return "null"
	case bool:
		return "a boolean"
	case string:
		return "a text"
	case json.Number, float64:
		return "a number"
	case []any:
		return "an array"
	case *jsontree.Object:
		return "an object"
	}
	return fmt.Sprintf("a %T", v)
}
