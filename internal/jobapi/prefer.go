package jobapi

import (
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// maxWait bounds how long a request waits for a job: as long as a synchronous call by default.
const maxWait = 29 * time.Second

// Preferences are what is honoured of the Prefer header (RFC 7240).
type Preferences struct {
	async bool          // respond-async
	Wait  time.Duration // wait, at most maxWait; zero means none
}

// ReadPreferences ignores what it doesn't know or can't read, as the RFC says; the first of a duplicate preference
// counts.
func ReadPreferences(h http.Header) (p Preferences) {
	waits := false
	for _, line := range h["Prefer"] {
		for _, preference := range splitList(line, ',') {
			preference = splitList(preference, ';')[0] // parameters: none are defined
			name, value, _ := strings.Cut(preference, "=")
			switch strings.ToLower(strings.TrimSpace(name)) {
			case "respond-async":
				p.async = true
			case "wait":
				value = strings.Trim(strings.TrimSpace(value), `"`)
				if n, err := strconv.ParseUint(value, 10, 31); !waits && (err == nil || errors.Is(err, strconv.ErrRange)) {
					waits = true
					p.Wait = min(time.Duration(n)*time.Second, maxWait) // n is the largest number if value is larger
				}
			}
		}
	}
	return p
}

// splitList splits a list at sep, but not inside of quoted strings (RFC 9110, section 5.6.4).
func splitList(text string, sep byte) []string {
	var out []string
	start, quoted := 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case c == sep && !quoted:
			out = append(out, text[start:i])
			start = i + 1
		}
	}
	return append(out, text[start:])
}

// Applied sets Preference-Applied.
func (p Preferences) Applied(h http.Header) {
	var parts []string
	if p.async {
		parts = append(parts, "respond-async")
	}
	if p.Wait > 0 {
		parts = append(parts, "wait="+strconv.Itoa(int(p.Wait/time.Second)))
	}
	if len(parts) > 0 {
		h.Set("Preference-Applied", strings.Join(parts, ", "))
	}
}
