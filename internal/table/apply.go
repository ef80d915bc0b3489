package table

import "github.com/weir-dev/weir/internal/jsontree"

// Apply is what the request makes of the item that is there, and what it answers. Old is nil if there is none. After is the item
// to be kept, nil if there is to be none; unless changed, that is old, and nothing has to be written. An error is an *Error: then
// nothing is changed.
//
// The answer is what DynamoDB answers: {"Item": {...}} to getItem, {"Attributes": {...}} to the others if ReturnValues asks for
// some, and {} if there are none. What Step Functions adds to answers, such as SdkHttpMetadata, is not in it.
func (r *Request) Apply(old *jsontree.Object) (after *jsontree.Object, changed bool, answer *jsontree.Object, err error) {
	if r.Op == Get {
		return old, false, r.got(old), nil
	}
	if r.condition != nil && !r.condition.holds(old) {
		return old, false, nil, &Error{ConditionFailed, "The conditional request failed"}
	}
	switch r.Op {
	case Put:
		after = r.item
	case Update:
		if after, err = r.updated(old); err != nil {
			return old, false, nil, err
		}
	}
	if after != nil && old != nil && jsontree.Equal(after, old) {
		after = old
	}
	return after, after != old, r.answer(old, after), nil
}

// got is the answer to getItem.
func (r *Request) got(item *jsontree.Object) *jsontree.Object {
	switch {
	case item == nil:
		return jsontree.NewObject(0)
	case r.projection != nil:
		item = r.projection.project(item)
	}
	return jsontree.Of("Item", item)
}

func (r *Request) updated(old *jsontree.Object) (*jsontree.Object, error) {
	item := old
	switch {
	case old != nil:
	case r.update != nil && r.update.onlyRemoves():
		return nil, nil //nolint:nilnil // as where nothing is there, nothing is made
	default:
		item = r.newItem()
	}
	if r.update == nil {
		return item, nil
	}
	after, err := r.update.apply(item)
	if err != nil {
		return nil, err
	}
	if itemSize(after) > maxItem {
		return nil, invalid("Item size to update has exceeded the maximum allowed size")
	}
	for _, c := range r.update.changes {
		v, _ := after.Get(c.path[0].name)
		if nesting(object(v)) > maxNesting {
			return nil, invalid(nestedTooDeep)
		}
	}
	return after, nil
}

// answer is that of an action that writes.
func (r *Request) answer(old, after *jsontree.Object) *jsontree.Object {
	var attributes *jsontree.Object
	switch r.returns {
	case returnAllOld:
		attributes = old
	case returnAllNew:
		attributes = after
	case returnUpdatedOld:
		attributes = r.touched(old)
	case returnUpdatedNew:
		attributes = r.touched(after)
	}
	if attributes == nil || attributes.Len() == 0 {
		return jsontree.NewObject(0)
	}
	return jsontree.Of("Attributes", attributes)
}

// touched is what the paths of the update lead to in the item.
func (r *Request) touched(item *jsontree.Object) *jsontree.Object {
	if r.update == nil || item == nil {
		return nil
	}
	return r.update.tree.project(item)
}
