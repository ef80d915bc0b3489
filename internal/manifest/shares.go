package manifest

import (
	"fmt"
	"strings"

	"github.com/weir-dev/weir/internal/catalog"
)

// caller is a mapping that calls a Knative Service of which it is known how many calls it takes at once.
type caller struct {
	s   *subject
	at  int  // in out.Mappings
	own bool // its cap is its own, and no share of what the Service takes
}

// share has the mappings of a Service together call it with no more than it takes at once: what those with a cap of their own leave
// is shared evenly by the others, and by the routes that call the Service, of which nobody knows how many calls they make. Of caps
// that are too much together the first are valid.
func (c *compiler) share() {
	for _, svc := range c.called {
		var sharing []caller
		var users, holders []string // of all, those that have what they have
		capacity, taken := svc.capacity(), int64(0)
		for _, one := range c.callers[svc] {
			switch n := int64(c.out.Mappings[one.at].MaxConcurrency); {
			case c.excluded(one.s):
				if earlier, ok := c.earlier(one.s.key); ok && earlier.Function.Name == svc.Name {
					taken += int64(earlier.MaxConcurrency)
					users, holders = append(users, one.s.String()), append(holders, one.s.String())
				}
				continue
			case !one.own:
				sharing = append(sharing, one)
				users = append(users, one.s.String())
				continue
			case taken > 0 && taken+n > capacity:
				c.fail(one.s, "spec.maxConcurrency", "%d calls and the %d of %s are more than %s takes at once, %d: lower one of them, or raise max-scale",
					n, taken, strings.Join(holders, " and "), svc.where("spec.template"), capacity)
				continue
			default:
				taken += n
				users, holders = append(users, one.s.String()), append(holders, one.s.String())
			}
		}
		left, parts := max(capacity-taken, 0), int64(len(sharing))
		routes := c.routesTo(svc)
		if len(routes) > 0 {
			parts++
		}
		for i, one := range sharing {
			if int64(i) >= left {
				c.fail(one.s, "spec.maxConcurrency", "is missing, and nothing is left of what %s takes at once, %d: %s has it. Lower a cap, or raise max-scale",
					svc.where("spec.template"), capacity, strings.Join(append(holders, names(sharing[:i])...), " and "))
				continue
			}
			n := left / parts
			if int64(i) < left%parts {
				n++
			}
			c.out.Mappings[one.at].MaxConcurrency = int(max(n, 1))
		}
		if users = append(users, routes...); len(users) < 2 {
			continue
		}
		for _, one := range c.callers[svc] {
			c.notes[one.s.ref()] = fmt.Sprintf("Service %s takes %d, and is called by %s", svc.Name, capacity, strings.Join(users, ", "))
		}
	}
}

func names(callers []caller) (all []string) {
	for _, one := range callers {
		all = append(all, one.s.String())
	}
	return all
}

// calls notes that a mapping calls svc.
func (c *compiler) calls(svc *knativeService, s *subject, own bool) {
	if len(c.callers[svc]) == 0 {
		c.called = append(c.called, svc)
	}
	c.callers[svc] = append(c.callers[svc], caller{s, len(c.out.Mappings), own})
}

// routesTo are the routes that call svc.
func (c *compiler) routesTo(svc *knativeService) (all []string) {
	for _, o := range c.objs.APIs {
		for i := range o.Object.Spec.Routes {
			r := &o.Object.Spec.Routes[i]
			if r.Function != nil && r.Function.Name == svc.Name && o.Object.Namespace == svc.Namespace {
				all = append(all, fmt.Sprintf("route %s of API %s", r.Name, o.Object.Name))
			}
		}
	}
	return all
}

// earlier is the published version of a mapping that goes on while the present one is faulty.
func (c *compiler) earlier(k catalog.Key) (catalog.Mapping, bool) {
	m, ok := c.before.mappings[k]
	return m, ok
}
