package jsonata

import "strings"

// signature is what a function says of its arguments: "<s-nn?:s>". Its parameters are matched with the arguments as a regular
// expression is with text, a letter for the type of each argument.
type signature struct {
	params []parameter
}

type parameter struct {
	class   string // of letters that it accepts
	kind    byte   // the letter that it was written as, ( for a choice
	subtype string // of an array's items or of a function
	context bool   // the context stands for it if it is missing
	marks   string // ?, + and what follows from them
}

func parseSignature(text string) (*signature, error) {
	sig := &signature{}
	for i := 1; i < len(text); i++ {
		var last *parameter
		if len(sig.params) > 0 {
			last = &sig.params[len(sig.params)-1]
		}
		c := text[i]
		switch c {
		case ':':
			return sig, sig.check()
		case 's', 'n', 'b', 'l', 'o':
			sig.params = append(sig.params, parameter{class: string(c) + "m", kind: c})
		case 'a', 'x':
			sig.params = append(sig.params, parameter{class: "asnblfom", kind: c})
		case 'j':
			sig.params = append(sig.params, parameter{class: "asnblom", kind: c})
		case 'f':
			sig.params = append(sig.params, parameter{class: "f", kind: c})
		case '-', '?', '+':
			if last == nil {
				return nil, fail("S0403")
			}
			if c == '-' {
				last.context = true
				c = '?'
			}
			last.marks += string(c)
		case '(':
			end := closing(text, i, '(', ')')
			choice := text[i+1 : end]
			if strings.Contains(choice, "<") {
				return nil, failValue("S0402", choice)
			}
			sig.params = append(sig.params, parameter{class: choice + "m", kind: '('})
			i = end
		case '<':
			if last == nil || last.kind != 'a' && last.kind != 'f' {
				e := fail("S0401")
				if last != nil {
					e.Value = string(last.kind)
				}
				return nil, e
			}
			end := closing(text, i, '<', '>')
			last.subtype = text[i+1 : end]
			i = end
		}
	}
	return sig, sig.check()
}

func (s *signature) check() error {
	for _, p := range s.params {
		switch p.marks {
		case "", "?", "+", "??", "+?":
		default:
			return fail("S0403")
		}
	}
	return nil
}

// closing is the place of the bracket that closes the one at open, or the text's end.
func closing(text string, open int, opening, closing byte) int {
	depth := 1
	for i := open + 1; i < len(text); i++ {
		switch text[i] {
		case closing:
			if depth--; depth == 0 {
				return i
			}
		case opening:
			depth++
		}
	}
	return len(text)
}

// match assigns arguments to parameters: how many each gets. It gives false if that is not possible.
func match(params []parameter, types []byte, counts []int) bool {
	if len(params) == 0 {
		return len(types) == 0
	}
	p := params[0]
	fits := 0
	for fits < len(types) && strings.IndexByte(p.class, types[fits]) >= 0 {
		fits++
	}
	least, most, lazy := 1, 1, len(p.marks) > 1
	if p.marks != "" && p.marks[0] == '?' {
		least = 0
	} else if p.marks != "" {
		most = len(types)
	}
	most = min(most, fits)
	for i := 0; i <= most-least; i++ {
		counts[0] = most - i
		if lazy {
			counts[0] = least + i
		}
		if match(params[1:], types[counts[0]:], counts[1:]) {
			return true
		}
	}
	return false
}

// validate gives the arguments as the function gets them: with the context where it stands for one, and arrays where those
// are wanted.
func (s *signature) validate(args []any, context any) ([]any, error) {
	var kinds [8]byte
	types := kinds[:0]
	for _, a := range args {
		types = append(types, symbol(a))
	}
	var room [8]int
	counts := room[:]
	if len(s.params) > len(room) {
		counts = make([]int, len(s.params))
	}
	counts = counts[:len(s.params)]
	if !match(s.params, types, counts) {
		return nil, s.mismatch(args, types)
	}
	valid := make([]any, 0, max(len(args), len(s.params)))
	next, matched := 0, 0 // apart if an optional argument is missing: then the reference takes the next one for it, too
	for i, p := range s.params {
		letters := types[matched : matched+counts[i]]
		matched += counts[i]
		if counts[i] == 0 {
			if !p.context {
				valid = append(valid, argument(args, next))
				next++
				continue
			}
			if strings.IndexByte(p.class, symbol(context)) < 0 {
				return nil, failArgument("T0411", context, next+1)
			}
			valid = append(valid, context)
			continue
		}
		for _, letter := range letters {
			v := argument(args, next)
			if p.kind == 'a' {
				if letter == 'm' {
					v = Nothing{}
				} else if !p.contains(v, letters) {
					return nil, failArgument("T0412", v, next+1)
				} else if letter != 'a' {
					v = []any{v}
				}
			}
			valid = append(valid, v)
			next++
		}
	}
	return valid, nil
}

// contains checks the items of an array; types begins with the argument's.
func (p *parameter) contains(v any, types []byte) bool {
	if p.subtype == "" {
		return true
	}
	items, is := elements(v)
	if !is {
		return string(types) == p.subtype
	}
	for _, item := range items {
		if symbol(item) != p.subtype[0] {
			return false
		}
	}
	return true
}

// mismatch names the argument that does not fit.
func (s *signature) mismatch(args []any, types []byte) error {
	good := 0
	counts := make([]int, len(s.params))
	for i := range s.params {
		reached := -1
		for n := len(types); n >= 0; n-- { // the longest beginning that the parameters so far match
			if match(s.params[:i+1], types[:n], counts) {
				reached = n
				break
			}
		}
		if reached < 0 {
			break
		}
		good = reached
	}
	return failArgument("T0410", argument(args, good), good+1)
}
