package machinegraph

import (
	"errors"
	"math"
	"slices"

	"github.com/weir-dev/weir/internal/statelang"
)

// Measures, in pixels.
const (
	charWidth   = 7.0 // of the font's average letter
	smallWidth  = 6.2 // of the labels'
	boxHeight   = 46.0
	headHeight  = 40.0 // of a box with machines in it
	minBoxWidth = 110.0
	padding     = 14.0
	gapAcross   = 26.0
	gapDown     = 30.0
	labelHeight = 18.0
	dotSize     = 14.0
	laneWidth   = 10.0 // of a way that passes a layer
	maxLabel    = 38   // characters
	maxName     = 44
	maxNodes    = 60_000
	sweeps      = 12
)

// errTooLarge means that a drawing would not be readable, and would take long to make.
var errTooLarge = errors.New("the state machine is too large to be drawn")

// node is a box, a dot, or a place where a way passes a layer.
type node struct {
	state  *statelang.State // nil: a dot or a place
	end    bool             // the dot at the end
	start  bool
	label  string // of a way
	full   string // the label uncut
	layer  int
	order  int
	x, y   float64 // of its middle
	w, h   float64
	bottom float64  // of its layer
	inner  []*chart // of a Parallel or Map
	before []*node
	after  []*node
}

// way is drawn through places, one in each layer.
type way struct {
	kind     statelang.WayKind
	through  []*node // from the upper to the lower end
	reversed bool    // it leads upwards
}

// chart is one machine, laid out.
type chart struct {
	nodes []*node
	loops []*node // states that lead to themselves
	ways  []*way
	w, h  float64
	left  float64 // of it in the box that it is in
}

// link is a way before there are layers.
type link struct {
	from, to *node
	kind     statelang.WayKind
	label    string
	back     bool
}

// lay lays out a machine. count bounds the nodes of all.
func lay(m *statelang.Machine, count *int) (*chart, error) {
	c := &chart{}
	links, err := c.read(m, count)
	if err != nil {
		return nil, err
	}
	c.layers(links)
	if err := c.route(links, count); err != nil {
		return nil, err
	}
	layers := c.ordered()
	c.across(layers)
	c.down(layers)
	return c, nil
}

// read makes the nodes of the states, and the links between them.
func (c *chart) read(m *statelang.Machine, count *int) ([]*link, error) {
	byState := map[*statelang.State]*node{}
	start := &node{start: true, w: dotSize, h: dotSize}
	c.nodes = append(c.nodes, start)
	for _, s := range m.States {
		if *count++; *count > maxNodes {
			return nil, errTooLarge
		}
		n := &node{state: s, h: boxHeight}
		n.w = max(minBoxWidth, charWidth*float64(min(runes(s.Name), maxName))+2*padding, smallWidth*float64(runes(subtitle(s)))+2*padding)
		if err := n.contain(s, count); err != nil {
			return nil, err
		}
		byState[s] = n
		c.nodes = append(c.nodes, n)
	}
	links := []*link{{from: start, to: byState[m.Start]}}
	var end *node
	for _, s := range m.States {
		n := byState[s]
		ways := s.Transitions()
		if s.Kind == statelang.Succeed {
			ways = append(ways, statelang.Transition{Way: statelang.Way{Kind: statelang.WayEnd}})
		}
		for _, t := range ways {
			l := &link{from: n, to: byState[t.To], kind: t.Kind, label: t.Label}
			switch t.Kind {
			case statelang.WayRetry:
				continue // the box says it
			case statelang.WayDefault:
				l.label = "Default"
			case statelang.WayEnd:
				if end == nil {
					end = &node{end: true, w: dotSize, h: dotSize}
				}
				l.to = end
			}
			if l.to == n {
				c.loops = append(c.loops, n)
				continue
			}
			links = append(links, l)
		}
	}
	if end != nil {
		c.nodes = append(c.nodes, end)
	}
	return links, nil
}

// contain lays out the machines in a state, side by side.
func (n *node) contain(s *statelang.State, count *int) error {
	machines := s.Machines()
	if len(machines) == 0 {
		return nil
	}
	left, high := padding, 0.0
	for _, m := range machines {
		inner, err := lay(m, count)
		if err != nil {
			return err
		}
		inner.left = left
		left += inner.w + padding
		high = max(high, inner.h)
		n.inner = append(n.inner, inner)
	}
	if left < n.w { // in the middle of a box that its name makes wider
		for _, inner := range n.inner {
			inner.left += (n.w - left) / 2
		}
	}
	n.w, n.h = max(n.w, left), headHeight+high+padding
	return nil
}

// layers gives each node a layer below those that lead to it. Ways that lead back are turned round for it.
func (c *chart) layers(links []*link) {
	out := map[*node][]*link{}
	for _, l := range links {
		out[l.from] = append(out[l.from], l)
	}
	var sorted []*node // against the direction of the ways
	state := map[*node]int{}
	type frame struct {
		n *node
		i int
	}
	const open, closed = 1, 2
	for _, root := range c.nodes {
		if state[root] != 0 {
			continue
		}
		state[root] = open
		for stack := []frame{{root, 0}}; len(stack) > 0; {
			top := &stack[len(stack)-1]
			if top.i == len(out[top.n]) {
				state[top.n] = closed
				sorted = append(sorted, top.n)
				stack = stack[:len(stack)-1]
				continue
			}
			l := out[top.n][top.i]
			top.i++
			switch state[l.to] {
			case open:
				l.back = true
			case 0:
				state[l.to] = open
				stack = append(stack, frame{l.to, 0})
			}
		}
	}
	into := map[*node][]*link{}
	for _, l := range links {
		_, to := l.ends()
		into[to] = append(into[to], l)
	}
	slices.Reverse(sorted)
	for _, n := range sorted { // those that lead to it come first
		for _, l := range into[n] {
			from, _ := l.ends()
			n.layer = max(n.layer, from.layer+l.length())
		}
	}
}

// ends are the upper and the lower end.
func (l *link) ends() (from, to *node) {
	if l.back {
		return l.to, l.from
	}
	return l.from, l.to
}

// length is how many layers a way needs: its label has one.
func (l *link) length() int {
	if l.label != "" {
		return 2
	}
	return 1
}

// route puts a place into each layer that a way passes; the first holds the label.
func (c *chart) route(links []*link, count *int) error {
	for _, l := range links {
		from, to := l.ends()
		w := &way{kind: l.kind, through: []*node{from}, reversed: l.back}
		last := from
		for layer := from.layer + 1; layer < to.layer; layer++ {
			if *count++; *count > maxNodes {
				return errTooLarge
			}
			p := &node{layer: layer, w: laneWidth}
			if layer == from.layer+1 && l.label != "" {
				p.full, p.label, p.h = l.label, cut(l.label, maxLabel), labelHeight
				p.w = smallWidth*float64(runes(p.label)) + 8
			}
			c.nodes = append(c.nodes, p)
			w.through = append(w.through, p)
			connect(last, p)
			last = p
		}
		connect(last, to)
		w.through = append(w.through, to)
		c.ways = append(c.ways, w)
	}
	return nil
}

func connect(from, to *node) {
	from.after = append(from.after, to)
	to.before = append(to.before, from)
}

// ordered puts the nodes of each layer in an order with few crossings: near the middle of those that they are connected with.
func (c *chart) ordered() [][]*node {
	var layers [][]*node
	for _, n := range c.nodes {
		for len(layers) <= n.layer {
			layers = append(layers, nil)
		}
		n.order = len(layers[n.layer])
		layers[n.layer] = append(layers[n.layer], n)
	}
	best, least := snapshot(layers), crossings(layers)
	for i := range sweeps {
		if i%2 == 0 {
			for _, layer := range layers {
				arrange(layer, func(n *node) []*node { return n.before })
			}
		} else {
			for _, layer := range slices.Backward(layers) {
				arrange(layer, func(n *node) []*node { return n.after })
			}
		}
		if now := crossings(layers); now < least {
			best, least = snapshot(layers), now
		}
	}
	for _, layer := range best {
		number(layer)
	}
	return best
}

func snapshot(layers [][]*node) [][]*node {
	made := make([][]*node, len(layers))
	for i, layer := range layers {
		made[i] = slices.Clone(layer)
	}
	return made
}

func number(layer []*node) {
	for i, n := range layer {
		n.order = i
	}
}

func arrange(layer []*node, of func(*node) []*node) {
	wanted := make(map[*node]float64, len(layer))
	for i, n := range layer {
		wanted[n] = float64(i)
		if near := of(n); len(near) > 0 {
			sum := 0.0
			for _, o := range near {
				sum += float64(o.order)
			}
			wanted[n] = sum / float64(len(near))
		}
	}
	slices.SortStableFunc(layer, func(a, b *node) int {
		switch {
		case wanted[a] < wanted[b]:
			return -1
		case wanted[a] > wanted[b]:
			return 1
		}
		return 0
	})
	number(layer)
}

// crossings counts how many pairs of ways cross, up to a bound.
func crossings(layers [][]*node) int {
	const most = 1_000_000
	all := 0
	for _, layer := range layers {
		var ends [][2]int
		for _, n := range layer {
			for _, o := range n.after {
				ends = append(ends, [2]int{n.order, o.order})
			}
		}
		if len(ends) > 2000 {
			return most // counting takes longer than it is worth
		}
		for i, a := range ends {
			for _, b := range ends[i+1:] {
				if (a[0]-b[0])*(a[1]-b[1]) < 0 {
					all++
				}
			}
		}
	}
	return min(all, most)
}

// across gives the nodes their places in each layer: as near as may be to the middle of those that they are connected with.
func (c *chart) across(layers [][]*node) {
	for _, layer := range layers {
		x := 0.0
		for _, n := range layer {
			n.x = x + n.w/2
			x += n.w + gapAcross
		}
		for _, n := range layer {
			n.x -= (x - gapAcross) / 2
		}
	}
	for i := range sweeps {
		if i%2 == 0 {
			for _, layer := range layers {
				place(layer, func(n *node) []*node { return n.before })
			}
		} else {
			for _, layer := range slices.Backward(layers) {
				place(layer, func(n *node) []*node { return n.after })
			}
		}
	}
	left, right := math.Inf(1), math.Inf(-1)
	for _, n := range c.nodes {
		left, right = min(left, n.x-n.w/2), max(right, n.x+n.w/2)
	}
	for _, n := range c.nodes {
		n.x += padding - left
	}
	c.w = right - left + 2*padding
	if len(c.loops) > 0 {
		c.w += loopRoom
	}
}

// loopRoom is for the way of a state to itself, at its right.
const loopRoom = 24.0

// place moves the nodes of a layer to where they want to be, as far as the room between them allows: the least sum of squares
// (pool adjacent violators).
func place(layer []*node, of func(*node) []*node) {
	type block struct {
		sum   float64
		count int
	}
	var blocks []block
	offset := make([]float64, len(layer)) // of a node from the first
	for i, n := range layer {
		if i > 0 {
			offset[i] = offset[i-1] + (layer[i-1].w+n.w)/2 + gapAcross
		}
		want := n.x
		if near := of(n); len(near) > 0 {
			want = 0
			for _, o := range near {
				want += o.x
			}
			want /= float64(len(near))
		}
		blocks = append(blocks, block{want - offset[i], 1})
		for len(blocks) > 1 {
			last, before := blocks[len(blocks)-1], blocks[len(blocks)-2]
			if before.sum/float64(before.count) <= last.sum/float64(last.count) {
				break
			}
			blocks = append(blocks[:len(blocks)-2], block{before.sum + last.sum, before.count + last.count})
		}
	}
	i := 0
	for _, b := range blocks {
		for range b.count {
			layer[i].x = b.sum/float64(b.count) + offset[i]
			i++
		}
	}
}

// down gives the layers their heights. Nodes stand at the top of their layer: a way goes straight down to the bottom of it, beside
// what is higher, before it turns.
func (c *chart) down(layers [][]*node) {
	y := padding
	for _, layer := range layers {
		high := 0.0
		for _, n := range layer {
			high = max(high, n.h)
		}
		for _, n := range layer {
			n.y, n.bottom = y+n.h/2, y+high
		}
		y += high + gapDown
	}
	c.h = y - gapDown + padding
}
