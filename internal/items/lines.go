package items

// lines are the items of JSON Lines: AWS takes as many as there are lines. That those that have nothing but blanks are none is
// our choice, as jsonlines.org's of the last.
type lines struct {
	w   *window
	max int
}

// next implements format.
func (l *lines) next() (any, error) {
	if _, err := l.w.peek(); err != nil { // past ends of lines, too
		return nil, err
	}
	line, size, err := l.w.line(0)
	if err != nil {
		return nil, err
	}
	v, err := l.w.parse(line, l.max)
	if err != nil {
		return nil, err
	}
	l.w.skip(size)
	return v, nil
}
