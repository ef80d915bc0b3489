package sharing

import (
	"cmp"
	"hash/fnv"
	"slices"
	"strings"

	"github.com/weir-dev/weir/internal/catalog"
)

// plan is who is to own which queues.
type plan struct {
	quota map[string]int         // how many queues each member is to have
	next  map[catalog.Key]string // of each free queue: who is to take it
}

// share divides queues among members so that nobody has more than one more than another. Members keep what they hold
// up to their quota, and those that hold most have the larger quota: so a member that joins or leaves moves as few queues
// as possible, and none twice. Members that see the same members and holders come to the same plan independently.
func share(members []string, queues []catalog.Key, holder func(catalog.Key) string) plan {
	p := plan{quota: make(map[string]int, len(members)), next: map[catalog.Key]string{}}
	if len(members) == 0 {
		return p
	}
	held := make(map[string]int, len(members))
	for _, m := range members {
		held[m] = 0
	}
	var free []catalog.Key
	for _, k := range queues {
		if h := holder(k); h == "" {
			free = append(free, k)
		} else {
			held[h]++
		}
	}
	members = slices.Clone(members)
	slices.SortFunc(members, func(a, b string) int { return cmp.Or(cmp.Compare(held[b], held[a]), strings.Compare(a, b)) })
	for i, m := range members {
		p.quota[m] = len(queues) / len(members)
		if i < len(queues)%len(members) {
			p.quota[m]++
		}
	}
	slices.SortFunc(free, compareKeys)
	for _, k := range free {
		// One has room: the quotas add up to all queues.
		for _, m := range byWeight(members, k) {
			if held[m] < p.quota[m] {
				held[m]++
				p.next[k] = m
				break
			}
		}
	}
	return p
}

func compareKeys(a, b catalog.Key) int {
	return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
}

// byWeight returns the members in a queue's order of preference (rendezvous hashing): it differs from queue to queue, and
// that of the others stays the same when one joins or leaves.
func byWeight(members []string, k catalog.Key) []string {
	weight := make(map[string]uint64, len(members))
	for _, m := range members {
		h := fnv.New64a()
		_, _ = h.Write([]byte(m + "\x00" + k.Namespace + "\x00" + k.Name))
		x := h.Sum64() // FNV's high bits are similar for similar texts: mixed by MurmurHash3's finalizer
		x = (x ^ x>>33) * 0xff51afd7ed558ccd
		x = (x ^ x>>33) * 0xc4ceb9fe1a85ec53
		weight[m] = x ^ x>>33
	}
	out := slices.Clone(members)
	slices.SortFunc(out, func(a, b string) int { return cmp.Or(cmp.Compare(weight[b], weight[a]), strings.Compare(a, b)) })
	return out
}
