package machinetest

import (
	"bufio"
	"fmt"
	"io"

	"github.com/weir-dev/weir/internal/statelang"
)

// reached is which states and transitions runs have come through.
type reached struct {
	states map[*statelang.State]int
	ways   map[wayOf]int
}

type wayOf struct {
	state *statelang.State
	way   statelang.Way
}

func newReached() *reached {
	return &reached{states: map[*statelang.State]int{}, ways: map[wayOf]int{}}
}

func (c *reached) observe(o statelang.Observation) {
	switch o.Stage {
	case statelang.StageEntered:
		c.states[o.State]++
	case statelang.StageLeft, statelang.StageRetry:
		c.ways[wayOf{o.State, o.Way}]++
	}
}

func (c *reached) add(other *reached) {
	for s, n := range other.states {
		c.states[s] += n
	}
	for w, n := range other.ways {
		c.ways[w] += n
	}
}

// Coverage is how much of a machine its tests have come through.
type Coverage struct {
	States      Count          `json:"states"`
	Transitions Count          `json:"transitions"`
	Items       []CoverageItem `json:"items"`
}

// Count is how many of all.
type Count struct {
	Covered int `json:"covered"`
	All     int `json:"all"`
}

func (c *Count) add(covered bool) {
	c.All++
	if covered {
		c.Covered++
	}
}

// CoverageItem is a state, or a way on from one.
type CoverageItem struct {
	State string `json:"state"` // its path
	Name  string `json:"name"`
	Way   string `json:"way,omitempty"` // of the state itself: none
	To    string `json:"to,omitempty"`
	Label string `json:"label,omitempty"`
	Times int    `json:"times"`
}

// Percent is the share of states and transitions together.
func (c *Coverage) Percent() float64 {
	all := c.States.All + c.Transitions.All
	if all == 0 {
		return 100
	}
	return 100 * float64(c.States.Covered+c.Transitions.Covered) / float64(all)
}

// coverage sums up a machine.
func (c *reached) coverage(m *statelang.Machine) Coverage {
	var x Coverage
	for s := range m.All() {
		x.States.add(c.states[s] > 0)
		x.Items = append(x.Items, CoverageItem{State: s.Path(), Name: s.Name, Times: c.states[s]})
		for _, t := range s.Transitions() {
			n := c.ways[wayOf{s, t.Way}]
			x.Transitions.add(n > 0)
			item := CoverageItem{State: s.Path(), Name: s.Name, Way: t.Way.String(), Label: t.Label, Times: n}
			if t.To != nil {
				item.To = t.To.Name
			}
			x.Items = append(x.Items, item)
		}
	}
	return x
}

// Print writes the coverage, with what was not reached, or with all.
func (c *Coverage) Print(w io.Writer, all bool) error {
	b := bufio.NewWriter(w)
	fmt.Fprintf(b, "coverage: %.1f %%, %d of %d states and %d of %d transitions\n", c.Percent(), c.States.Covered, c.States.All, c.Transitions.Covered, c.Transitions.All)
	missed := map[string]bool{}
	for _, item := range c.Items {
		if item.Way == "" && item.Times == 0 {
			missed[item.State] = true
		}
		switch {
		case all:
			fmt.Fprintf(b, "  %6d  %s\n", item.Times, item.describe())
		case item.Times == 0 && (item.Way == "" || !missed[item.State]):
			fmt.Fprintf(b, "  never: %s\n", item.describe())
		}
	}
	return b.Flush()
}

func (i *CoverageItem) describe() string {
	if i.Way == "" {
		return i.State
	}
	text := i.State + "/" + i.Way
	switch {
	case i.Way == string(statelang.WayEnd):
	case i.Label != "" && i.To != i.Name:
		text += fmt.Sprintf(" → %s (%s)", i.To, shorten(i.Label))
	case i.Label != "":
		text += fmt.Sprintf(" (%s)", shorten(i.Label))
	default:
		text += " → " + i.To
	}
	return text
}
