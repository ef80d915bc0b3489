package machinetest

import (
	"encoding/xml"
	"fmt"
	"io"
	"slices"
	"strings"
)

// JUnit's XML, as far as continuous integration reads it (the schema of Jenkins' xunit plug-in).
type junitSuites struct {
	XMLName xml.Name     `xml:"testsuites"`
	Suites  []junitSuite `xml:"testsuite"`
}

type junitSuite struct {
	Name     string      `xml:"name,attr"`
	Tests    int         `xml:"tests,attr"`
	Failures int         `xml:"failures,attr"`
	Errors   int         `xml:"errors,attr"`
	Cases    []junitCase `xml:"testcase"`
}

type junitCase struct {
	Name      string        `xml:"name,attr"`
	Classname string        `xml:"classname,attr"`
	File      string        `xml:"file,attr"`
	Line      int           `xml:"line,attr,omitempty"`
	Time      int           `xml:"time,attr"` // 0: the simulated clock's is no time of the test
	Failure   *junitFailure `xml:"failure"`
	Error     *junitFailure `xml:"error"`
}

type junitFailure struct {
	Message string `xml:"message,attr"`
	Text    string `xml:",chardata"`
}

// WriteJUnit writes reports as JUnit XML.
func WriteJUnit(w io.Writer, reports []Report) error {
	var all junitSuites
	for _, r := range reports {
		s := junitSuite{Name: r.File}
		if wrong := append(slices.Clip(r.Problems), r.Unused...); len(wrong) > 0 {
			s.Cases = append(s.Cases, junitCase{Name: "the file", Classname: r.File, File: r.File, Line: wrong[0].Line, Error: problemsText(r.File, wrong)})
			s.Errors++
		}
		for _, c := range r.Cases {
			jc := junitCase{Name: c.Name, Classname: r.File, File: r.File, Line: c.Line}
			if !c.Passed {
				jc.Failure = failureText(r.File, c.Failures)
				s.Failures++
			}
			s.Cases = append(s.Cases, jc)
		}
		s.Tests = len(s.Cases)
		all.Suites = append(all.Suites, s)
	}
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	e := xml.NewEncoder(w)
	e.Indent("", "  ")
	if err := e.Encode(all); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}

func problemsText(file string, problems []Problem) *junitFailure {
	var b strings.Builder
	for _, p := range problems {
		fmt.Fprintf(&b, "%s: %s\n", at(file, p.Line), p)
	}
	return &junitFailure{Message: problems[0].String(), Text: b.String()}
}

func failureText(file string, failures []CaseFailure) *junitFailure {
	var b strings.Builder
	for _, f := range failures {
		fmt.Fprintf(&b, "%s: %s\n", at(file, f.Line), f.Message)
		for _, d := range f.Differences {
			fmt.Fprintf(&b, "  %s\n    want %s\n    got  %s\n", d.Path, d.Want, d.Got)
		}
	}
	return &junitFailure{Message: failures[0].Message, Text: b.String()}
}
