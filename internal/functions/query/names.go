package query

import (
	"errors"
	"strconv"
	"strings"
)

// scanned is a statement with its named parameters numbered, as PostgreSQL wants them.
type scanned struct {
	sql     string
	names   []string // of $1, $2, …
	first   string   // its first word, in upper case; "(" if it begins with one
	several bool     // something follows a semicolon
}

// errNumbered is a $1 where a name must be.
var errNumbered = errors.New("parameters are named, as :id, and not numbered, as $1")

// scan numbers the parameters of a statement: a colon with a name behind it, outside of texts, quoted names, comments and casts
// (PostgreSQL documentation, Lexical Structure). What is no SQL it leaves to PostgreSQL.
func scan(sql string) (scanned, error) {
	var s scanned
	var out strings.Builder
	numbers := map[string]int{}
	ended := false
	for at := 0; at < len(sql); {
		rest := sql[at:]
		n, word := 1, true // how long the token is, and whether it means something
		switch c := rest[0]; {
		case strings.IndexByte(" \t\r\n\f\v", c) >= 0:
			word = false
		case strings.HasPrefix(rest, "--"):
			n, word = upTo(rest, "\n", 2), false
		case strings.HasPrefix(rest, "/*"):
			n, word = comment(rest), false
		case c == '\'' || c == '"':
			n = quoted(rest, c)
		case c == '$':
			if len(rest) > 1 && isDigit(rest[1]) {
				return s, errNumbered
			}
			n = dollarQuoted(rest)
		case isLetter(c):
			for n < len(rest) && (isLetter(rest[n]) || isDigit(rest[n]) || rest[n] == '$') {
				n++
			}
			if (rest[:n] == "E" || rest[:n] == "e") && len(rest) > 1 && rest[1] == '\'' {
				n = escaped(rest)
			}
		case strings.HasPrefix(rest, "::") || strings.HasPrefix(rest, ":="):
			n = 2
		case c == ':' && len(rest) > 1 && isLetter(rest[1]):
			for n < len(rest) && (isLetter(rest[n]) || isDigit(rest[n])) {
				n++
			}
			name := rest[1:n]
			if numbers[name] == 0 {
				s.names = append(s.names, name)
				numbers[name] = len(s.names)
			}
			out.WriteString("$" + strconv.Itoa(numbers[name]))
			s.several = s.several || ended
			at += n
			continue
		case c == ';':
			ended, word = true, false
		}
		if word {
			if s.first == "" {
				s.first = strings.ToUpper(rest[:n])
			}
			s.several = s.several || ended
		}
		out.WriteString(rest[:n])
		at += n
	}
	s.sql = out.String()
	return s, nil
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// isLetter reports what a name begins with; PostgreSQL takes all of UTF-8.
func isLetter(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c == '_' || c >= 0x80
}

// upTo is the length of text until after end, which is looked for from an offset on; all of it if there is no end.
func upTo(text, end string, from int) int {
	if i := strings.Index(text[from:], end); i >= 0 {
		return from + i + len(end)
	}
	return len(text)
}

// comment is the length of a /* comment */, in which others may be.
func comment(text string) int {
	depth, at := 1, 2
	for at < len(text) && depth > 0 {
		switch {
		case strings.HasPrefix(text[at:], "/*"):
			depth, at = depth+1, at+2
		case strings.HasPrefix(text[at:], "*/"):
			depth, at = depth-1, at+2
		default:
			at++
		}
	}
	return at
}

// quoted is the length of a text or a name in quotes. Two quotes in it stand for one: they end one and begin the next.
func quoted(text string, quote byte) int { return upTo(text, string(quote), 1) }

// escaped is the length of E'a text', in which a backslash may stand before a quote, with all that continues it on further lines.
func escaped(text string) int {
	for at := 2; at < len(text); at++ {
		switch text[at] {
		case '\\':
			at++
		case '\'':
			rest := strings.TrimLeft(text[at+1:], " \t\r\n\f\v")
			gap := text[at+1 : len(text)-len(rest)]
			if !strings.HasPrefix(rest, "'") || gap != "" && !strings.ContainsAny(gap, "\r\n") {
				return at + 1
			}
			at += len(gap) + 1
		}
	}
	return len(text)
}

// dollarQuoted is the length of $tag$a text$tag$; 1 if the dollar begins none.
func dollarQuoted(text string) int {
	end := strings.IndexByte(text[1:], '$')
	if end < 0 {
		return 1
	}
	tag := text[:end+2]
	for i := 1; i <= end; i++ {
		if !isLetter(tag[i]) && !isDigit(tag[i]) {
			return 1
		}
	}
	return upTo(text, tag, len(tag))
}
