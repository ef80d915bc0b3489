package manifest

import (
	"slices"
	"testing"

	"github.com/weir-dev/weir/internal/catalog"
)

// TestUndrainedQueuesAreNamed, whatever fills them. cmd/weir tests what Lint says.
func TestUndrainedQueuesAreNamed(t *testing.T) {
	cat := &catalog.Catalog{
		Queues: []catalog.Queue{{Key: inDefault("a")}, {Key: inDefault("b")}, {Key: inDefault("unused")}},
		APIs: []catalog.API{{Key: inDefault("shop"), Routes: []catalog.Route{
			{Name: "1", Queue: &catalog.QueueTarget{Queue: inDefault("a")}}, {Name: "2", Job: &catalog.QueueTarget{Queue: inDefault("b")}},
		}}},
		Mappings: []catalog.Mapping{{Key: inDefault("m"), Queue: inDefault("a")}},
	}
	if got, want := Undrained(cat), []catalog.Key{inDefault("b"), inDefault("unused")}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
