package machinegraph

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"strconv"
	"unicode/utf8"

	"github.com/weir-dev/weir/internal/statelang"
)

// SVG draws a machine.
func SVG(m *statelang.Machine) ([]byte, error) {
	count := 0
	c, err := lay(m, &count)
	if err != nil {
		return nil, err
	}
	p := &pen{}
	p.f(`<svg xmlns="http://www.w3.org/2000/svg" width="%s" height="%s" viewBox="0 0 %s %s" font-family="Helvetica, Arial, sans-serif" font-size="13">`,
		px(c.w), px(c.h), px(c.w), px(c.h))
	p.f(`<defs>%s%s</defs>`, arrow("arrow", wayColor), arrow("caught", catchColor))
	p.f(`<rect width="100%%" height="100%%" fill="#ffffff"/>`)
	p.chart(c, 0, 0)
	p.f(`</svg>`)
	return p.b.Bytes(), nil
}

// Colors.
const (
	wayColor   = "#4a5568"
	catchColor = "#c05621"
	textColor  = "#1a202c"
	softColor  = "#5a6577"
)

func arrow(id, color string) string {
	return fmt.Sprintf(`<marker id="%s" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto-start-reverse"><path d="M0 0L10 5L0 10z" fill="%s"/></marker>`, id, color)
}

// fill and edge are the colors of a kind of state.
func colors(k statelang.Kind) (fill, edge string) {
	switch k {
	case statelang.Task:
		return "#ebf4ff", "#4c78c9"
	case statelang.Choice:
		return "#fff8e1", "#c99a1a"
	case statelang.Wait:
		return "#f3ecff", "#8a63d2"
	case statelang.Succeed:
		return "#e6f6ea", "#389e52"
	case statelang.Fail:
		return "#fdecea", "#d04437"
	case statelang.Parallel, statelang.Map:
		return "#f7f8fa", "#7a8699"
	default:
		return "#ffffff", "#7a8699"
	}
}

type pen struct{ b bytes.Buffer }

func (p *pen) f(format string, args ...any) {
	fmt.Fprintf(&p.b, format, args...)
	p.b.WriteByte('\n')
}

// chart draws a machine whose upper left corner is at x and y: first the ways, so that they end below the boxes.
func (p *pen) chart(c *chart, x, y float64) {
	for _, w := range c.ways {
		p.way(w, x, y)
	}
	for _, n := range c.loops {
		right, top, bottom := x+n.x+n.w/2, y+n.y-8, y+n.y+8
		p.f(`<path d="M%s %sC%s %s %s %s %s %s" fill="none" stroke="%s" marker-end="url(#arrow)"/>`,
			px(right), px(bottom), px(right+loopRoom), px(bottom+6), px(right+loopRoom), px(top-6), px(right), px(top), wayColor)
	}
	for _, n := range c.nodes {
		switch {
		case n.state != nil:
			p.box(n, x, y)
		case n.start:
			p.f(`<circle cx="%s" cy="%s" r="%s" fill="%s"/>`, px(x+n.x), px(y+n.y), px(dotSize/2), wayColor)
		case n.end:
			p.f(`<circle cx="%s" cy="%s" r="%s" fill="#ffffff" stroke="%s" stroke-width="1.5"/>`, px(x+n.x), px(y+n.y), px(dotSize/2-1), wayColor)
			p.f(`<circle cx="%s" cy="%s" r="%s" fill="%s"/>`, px(x+n.x), px(y+n.y), px(dotSize/2-4), wayColor)
		case n.label != "":
			p.label(n, x, y)
		}
	}
}

func (p *pen) box(n *node, x, y float64) {
	s := n.state
	fill, edge := colors(s.Kind)
	left, top := x+n.x-n.w/2, y+n.y-n.h/2
	dashes := ""
	if s.Kind == statelang.Map {
		dashes = ` stroke-dasharray="7 3"`
	}
	p.f(`<g><title>%s</title>`, escape(s.Path()))
	p.f(`<rect x="%s" y="%s" width="%s" height="%s" rx="7" fill="%s" stroke="%s" stroke-width="1.3"%s/>`, px(left), px(top), px(n.w), px(n.h), fill, edge, dashes)
	p.f(`<text x="%s" y="%s" text-anchor="middle" fill="%s" font-weight="bold">%s</text>`, px(x+n.x), px(top+19), textColor, escape(cut(s.Name, maxName)))
	p.f(`<text x="%s" y="%s" text-anchor="middle" fill="%s" font-size="11">%s</text>`, px(x+n.x), px(top+35), softColor, escape(subtitle(s)))
	p.f(`</g>`)
	for _, inner := range n.inner {
		if s.Kind == statelang.Parallel {
			p.f(`<rect x="%s" y="%s" width="%s" height="%s" rx="5" fill="#ffffff" stroke="#d5dae2"/>`, px(left+inner.left), px(top+headHeight), px(inner.w), px(inner.h))
		}
		p.chart(inner, left+inner.left, top+headHeight)
	}
}

func (p *pen) label(n *node, x, y float64) {
	p.f(`<g><title>%s</title><rect x="%s" y="%s" width="%s" height="%s" rx="3" fill="#ffffff" fill-opacity="0.9"/>`,
		escape(n.full), px(x+n.x-n.w/2), px(y+n.y-n.h/2), px(n.w), px(n.h))
	p.f(`<text x="%s" y="%s" text-anchor="middle" fill="%s" font-size="11">%s</text></g>`, px(x+n.x), px(y+n.y+4), softColor, escape(n.label))
}

// way draws a way as curves from layer to layer.
func (p *pen) way(w *way, x, y float64) {
	var d bytes.Buffer
	fx, fy := 0.0, 0.0
	for i, n := range w.through {
		tx, ty := x+n.x, y+n.y-n.h/2
		if i == 0 {
			fmt.Fprintf(&d, "M%s %s", px(tx), px(ty+n.h))
		} else {
			middle := (fy + ty) / 2
			fmt.Fprintf(&d, "C%s %s %s %s %s %s", px(fx), px(middle), px(tx), px(middle), px(tx), px(ty))
		}
		if fx, fy = tx, y+n.bottom; i < len(w.through)-1 {
			fmt.Fprintf(&d, "L%s %s", px(fx), px(fy))
		}
	}
	color, mark, dashes := wayColor, "arrow", ""
	if w.kind == statelang.WayCatch {
		color, mark, dashes = catchColor, "caught", ` stroke-dasharray="5 4"`
	}
	end := "end"
	if w.reversed {
		end = "start"
	}
	p.f(`<path d="%s" fill="none" stroke="%s" stroke-width="1.3"%s marker-%s="url(#%s)"/>`, d.String(), color, dashes, end, mark)
}

// subtitle says what a state is, and what it calls.
func subtitle(s *statelang.State) string {
	text := string(s.Kind)
	if s.Distributed() {
		text = "distributed " + text
	}
	if r, ok := s.Resource(); ok {
		switch {
		case r.Kind == statelang.Integration && r.Pattern != statelang.RequestResponse:
			text += fmt.Sprintf(" · %s:%s.%s", r.Service, r.Action, r.Pattern)
		case r.Kind == statelang.Integration:
			text += fmt.Sprintf(" · %s:%s", r.Service, r.Action)
		case r.Name != "":
			text += " · " + r.Name
		default:
			text += " · " + r.Text
		}
	}
	text = cut(text, maxName)
	for _, t := range s.Transitions() {
		if t.Kind == statelang.WayRetry {
			return text + " ↻"
		}
	}
	return text
}

// px writes a measure, to a tenth of a pixel.
func px(f float64) string { return strconv.FormatFloat(float64(int(f*10+0.5))/10, 'f', -1, 64) }

func runes(s string) int { return utf8.RuneCountInString(s) }

// cut shortens a text to a number of characters.
func cut(s string, most int) string {
	if runes(s) <= most {
		return s
	}
	return string([]rune(s)[:most-1]) + "…"
}

func escape(s string) string {
	var b bytes.Buffer
	if err := xml.EscapeText(&b, []byte(s)); err != nil {
		return ""
	}
	return b.String()
}
