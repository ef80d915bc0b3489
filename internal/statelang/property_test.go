package statelang_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/weir-dev/weir/internal/jsontree"
	"github.com/weir-dev/weir/internal/statelang"
)

// TestRandomMachines runs machines that are made at random, with tasks that answer, fail and hang at random: each ends, and
// made again of its events it is the same. WEIR_SEED=N runs one, WEIR_LONG=1 a hundred thousand.
func TestRandomMachines(t *testing.T) {
	first, n := rand.Uint64N(1<<32), 2_000
	if os.Getenv("WEIR_LONG") != "" {
		n = 100_000
	}
	if seed, err := strconv.ParseUint(os.Getenv("WEIR_SEED"), 10, 64); err == nil {
		first, n = seed, 1
	}
	ended := map[statelang.Status]int{}
	for i := range n {
		g := &generator{Rand: rand.New(rand.NewPCG(first+uint64(i), 0)), names: new(int)}
		definition, err := json.Marshal(g.machine(0))
		if err != nil {
			t.Fatal(err)
		}
		m, err := statelang.Parse(definition, statelang.Options{})
		if err != nil {
			t.Fatalf("WEIR_SEED=%d: refused: %v\n%s", first+uint64(i), err, definition)
		}
		input, _ := jsontree.Parse([]byte(`{"n": 3, "list": [1, 2, 3], "o": {"s": "text"}}`))
		s := &simulation{answer: g.answer}
		r := s.run(m, statelang.Start{ID: "e", Name: "e", Input: input, At: time.Unix(1_800_000_000, 0)})
		ended[r.Status()]++
		if r.Status() == statelang.StatusRunning {
			t.Fatalf("WEIR_SEED=%d: it neither ends nor waits\n%s", first+uint64(i), definition)
		}
		if why := s.madeAgain(m, r); why != "" {
			t.Fatalf("WEIR_SEED=%d: %s\n%s", first+uint64(i), why, definition)
		}
		if why := leftOver(s); why != "" {
			t.Fatalf("WEIR_SEED=%d: %s\n%s", first+uint64(i), why, definition)
		}
		if r.Status() == statelang.StatusFailed { // and goes on
			g.good = true
			s.tell(r, statelang.Event{Kind: statelang.Redriven})
			s.drive(r)
			if why := s.madeAgain(m, r); why != "" {
				t.Fatalf("WEIR_SEED=%d: redriven, %s\n%s", first+uint64(i), why, definition)
			}
		}
	}
	if ended[statelang.StatusSucceeded] < n/4 && n > 1 {
		t.Errorf("only %v", ended)
	}
	t.Logf("%d machines from seed %d: %v", n, first, ended)
}

// TestMutatedMachines: what is accepted runs, and what can't run is refused. A machine that is made at random is changed in one
// place: either in a way that breaks it, and then it is refused; or in one that doesn't, and then it runs to its end. WEIR_SEED=N
// runs one.
func TestMutatedMachines(t *testing.T) {
	first, n := rand.Uint64N(1<<32), 2_000
	if seed, err := strconv.ParseUint(os.Getenv("WEIR_SEED"), 10, 64); err == nil {
		first, n = seed, 1
	}
	refused := 0
	for i := range n {
		seed := first + uint64(i)
		g := &generator{Rand: rand.New(rand.NewPCG(seed, 0)), names: new(int)}
		machine := g.machine(0)
		what, breaks := g.mutate(machine)
		definition, err := json.Marshal(machine)
		if err != nil {
			t.Fatal(err)
		}
		m, err := statelang.Parse(definition, statelang.Options{})
		if breaks {
			if refused++; err == nil {
				t.Fatalf("WEIR_SEED=%d: %s, and it was taken\n%s", seed, what, definition)
			}
			continue
		}
		if err != nil {
			t.Fatalf("WEIR_SEED=%d: %s, and it was refused: %v\n%s", seed, what, err, definition)
		}
		input, _ := jsontree.Parse([]byte(`{"n": 3, "list": [1, 2, 3], "o": {"s": "text"}}`))
		s := &simulation{answer: g.answer}
		r := s.run(m, statelang.Start{ID: "e", Name: "e", Input: input, At: time.Unix(1_800_000_000, 0)})
		if r.Status() == statelang.StatusRunning || s.seen == 0 {
			t.Fatalf("WEIR_SEED=%d: %s, and it neither ends nor waits\n%s", seed, what, definition)
		}
		if why := s.madeAgain(m, r); why != "" {
			t.Fatalf("WEIR_SEED=%d: %s: %s\n%s", seed, what, why, definition)
		}
	}
	if n > 1 && (refused < n/4 || refused > 3*n/4) {
		t.Errorf("%d of %d were broken", refused, n)
	}
}

// mutate changes one state, or the machine itself, and says how, and whether that breaks it.
func (g *generator) mutate(machine object) (what string, breaks bool) {
	states := machine["States"].(object)
	names := slices.Sorted(maps.Keys(states))
	name := names[g.IntN(len(names))]
	s := states[name].(object)
	set := func(field string, v any) { s[field] = v }
	_, hasNext := s["Next"]
	_, hasEnd := s["End"]
	breaking := []func() string{
		func() string { machine["StartAt"] = "nobody"; return "it starts nowhere" },
		func() string { set("Type", "Pas"); return name + " has an unknown type" },
		func() string { set("Typ", 1); return name + " has an unknown field" },
		func() string { delete(s, "Type"); return name + " has no type" },
		func() string { states["alone"] = object{"Type": "Succeed"}; return "a state is never reached" },
		func() string { states[name] = "text"; return name + " is no object" },
		func() string { set("QueryLanguage", "SQL"); return name + " has an unknown query language" },
	}
	if hasNext || hasEnd {
		breaking = append(breaking,
			func() string { delete(s, "Next"); delete(s, "End"); return name + " leads nowhere" },
			func() string { set("Next", "nobody"); return name + " leads to nobody" },
			func() string { set("End", "yes"); return name + " ends with a text" },
			func() string { set("Assign", object{"a b": 1}); return name + " assigns a bad name" },
			func() string { set("OutputPath", "$["); return name + " has a bad path" })
	}
	harmless := []func() string{
		func() string { set("Comment", "changed"); return name + " has a comment" },
		func() string { machine["Version"] = "1.0"; return "it has a version" },
		func() string { machine["TimeoutSeconds"] = 100_000; return "it has a timeout" },
	}
	for _, field := range []string{"Retry", "Catch", "ResultPath", "Assign", "HeartbeatSeconds", "MaxConcurrency"} {
		if _, there := s[field]; there {
			harmless = append(harmless, func() string { delete(s, field); return name + " has no " + field })
		}
	}
	if g.IntN(2) == 0 {
		return breaking[g.IntN(len(breaking))](), true
	}
	return harmless[g.IntN(len(harmless))](), false
}

// leftOver says what an execution that has ended still waits for.
func leftOver(s *simulation) string {
	if len(s.calls) > 0 || len(s.wakes) > 0 {
		return fmt.Sprintf("it has ended, and waits for %v and %v", s.calls, s.wakes)
	}
	return ""
}

// generator makes machines.
type generator struct {
	*rand.Rand
	names *int
	good  bool
}

type object = map[string]any

func (g *generator) machine(depth int) object {
	n := 1 + g.IntN(4)
	names := make([]string, n)
	for i := range names {
		*g.names++
		names[i] = fmt.Sprintf("s%d", *g.names)
	}
	states := object{}
	for i, name := range names {
		next := ""
		if i+1 < n {
			next = names[i+1] // only forward: it ends
		}
		states[name] = g.state(depth, next, names[i+1:])
	}
	return object{"StartAt": names[0], "States": states}
}

func (g *generator) state(depth int, next string, later []string) object {
	kinds := []string{"Pass", "Task", "Wait", "Choice", "Pass", "Task"}
	if depth < 3 {
		kinds = append(kinds, "Parallel", "Map", "Map")
	}
	s := object{"Type": kinds[g.IntN(len(kinds))]}
	if s["Type"] == "Choice" && next == "" {
		s["Type"] = []string{"Succeed", "Fail"}[g.IntN(2)]
	}
	switch s["Type"] {
	case "Succeed":
		return s
	case "Fail":
		s["Error"] = "Custom"
		return s
	case "Choice":
		rules := []object{{"Variable": "$.n", "IsPresent": true, "Next": later[g.IntN(len(later))]}}
		for _, name := range later { // all can be reached
			rules = append(rules, object{"Not": object{"Variable": "$.n", "IsPresent": true}, "Next": name})
		}
		s["Choices"], s["Default"] = rules, next
		return s
	}
	if next == "" {
		s["End"] = true
	} else {
		s["Next"] = next
	}
	if g.IntN(3) == 0 {
		s["Assign"] = object{"v": 1, "w.$": "$"}
	}
	switch s["Type"] {
	case "Pass":
		if g.IntN(2) == 0 {
			s["Parameters"] = object{"n": g.IntN(5), "list.$": "States.ArrayRange(1, 3, 1)", "id.$": "States.UUID()", "in.$": "$"}
		}
		if g.IntN(2) == 0 {
			s["ResultPath"] = []any{"$.n", "$.o.p", nil}[g.IntN(3)]
		}
	case "Wait":
		s["Seconds"] = g.IntN(100)
	case "Task":
		s["Resource"] = []string{"f", "arn:aws:states:::sqs:sendMessage.waitForTaskToken", "arn:aws:states:us-east-1:111111111111:activity:a"}[g.IntN(3)]
		s["TimeoutSeconds"] = 10 + g.IntN(100)
		if g.IntN(3) == 0 {
			s["HeartbeatSeconds"] = 1 + g.IntN(9)
		}
		if g.IntN(2) == 0 {
			s["ResultPath"] = "$.result"
		}
		g.rules(s, next)
	case "Parallel":
		var branches []object
		for range 1 + g.IntN(3) {
			branches = append(branches, g.machine(depth+1))
		}
		s["Branches"] = branches
		if g.IntN(2) == 0 {
			s["ResultPath"] = "$.result"
		}
		g.rules(s, next)
	case "Map":
		processor := g.machine(depth + 1)
		if g.IntN(4) == 0 && depth == 0 {
			processor["ProcessorConfig"] = object{"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"}
			s["ToleratedFailurePercentage"] = g.IntN(101)
			if g.IntN(2) == 0 {
				s["ItemBatcher"] = object{"MaxItemsPerBatch": 2}
			}
		}
		s["ItemProcessor"] = processor
		s["Parameters"] = object{"item.$": "$$.Map.Item.Value", "index.$": "$$.Map.Item.Index", "list": []int{1, 2}, "n": 1}
		s["MaxConcurrency"] = g.IntN(3)
		if g.IntN(4) > 0 {
			s["ItemsPath"] = "$.list"
			s["ResultPath"] = "$.result"
		}
		g.rules(s, next)
	}
	return s
}

func (g *generator) rules(s object, next string) {
	if g.IntN(2) == 0 {
		retry := object{"ErrorEquals": []string{"Custom", "States.Timeout"}, "MaxAttempts": g.IntN(4), "BackoffRate": 1.5}
		if g.IntN(2) == 0 {
			retry["JitterStrategy"], retry["MaxDelaySeconds"] = "FULL", 5
		}
		s["Retry"] = []object{retry}
	}
	if g.IntN(2) == 0 && next != "" {
		s["Catch"] = []object{{"ErrorEquals": []string{"States.ALL"}, "Next": next, "ResultPath": "$.error"}}
	}
}

func (g *generator) answer(e statelang.Effect) []statelang.Event {
	if !g.good {
		switch g.IntN(6) {
		case 0:
			return []statelang.Event{{Kind: statelang.Failed, Failure: statelang.NewFailure([]string{"Custom", "Other"}[g.IntN(2)], "why")}}
		case 1:
			return nil
		}
	}
	output, _ := jsontree.Parse([]byte(`{"n": 1, "list": [1, "two", null]}`))
	if e.Resource.Kind == statelang.Activity {
		taken := []statelang.Event{{Kind: statelang.Beat}, {Kind: statelang.Taken, Worker: "w"}, {Kind: statelang.Taken}, {Kind: statelang.Beat}}
		return append(taken[:g.IntN(len(taken)+1)], statelang.Event{Kind: statelang.Succeeded, Output: output})
	}
	if e.Resource.Waits() {
		return []statelang.Event{{Kind: statelang.Submitted}, {Kind: statelang.Beat}, {Kind: statelang.Succeeded, Output: output}}
	}
	return []statelang.Event{{Kind: statelang.Succeeded, Output: output}}
}

// FuzzParse: whatever is given, it is refused with reasons, or it runs; nothing panics.
func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"StartAt":"a","States":{"a":{"Type":"Pass","Parameters":{"x.$":"States.Format('{}', $.y)"},"End":true}}}`), []byte(`{"y":1}`))
	f.Add([]byte(`{"QueryLanguage":"JSONata","StartAt":"a","States":{"a":{"Type":"Map","Items":"{% $states.input %}","ItemProcessor":{"StartAt":"b","States":{"b":{"Type":"Task","Resource":"f","End":true}}},"End":true}}}`), []byte(`[1,2]`))
	f.Add([]byte(`{"StartAt":"a","States":{"a":{"Type":"Choice","Choices":[{"And":[{"Variable":"$.x","StringMatches":"a*"}],"Next":"b"}],"Default":"b"},"b":{"Type":"Wait","SecondsPath":"$.s","End":true}}}`), []byte(`{"x":"ab","s":3}`))
	f.Fuzz(func(t *testing.T, definition, input []byte) {
		m, err := statelang.Parse(definition, statelang.Options{})
		if err != nil {
			if len(err.Error()) == 0 {
				t.Error("refused without a reason")
			}
			return
		}
		v, err := jsontree.Parse(input)
		if err != nil {
			return
		}
		g := &generator{Rand: rand.New(rand.NewPCG(1, 0))}
		left := 200 // a machine may go in circles
		s := &simulation{answer: g.answer}
		start := statelang.Start{ID: "e", Input: v, At: time.Unix(1_800_000_000, 0)}
		s.start, s.now = start, start.At
		r, effects := statelang.New(m, start)
		s.take(effects)
		for ; left > 0 && r.Status() == statelang.StatusRunning; left-- {
			e, ok := s.next()
			if !ok {
				break
			}
			s.tell(r, e)
		}
		if r.Status() == statelang.StatusFailed && r.Failure() == nil {
			t.Error("failed without a failure")
		}
	})
}
