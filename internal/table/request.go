package table

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/weir-dev/weir/internal/jsontree"
)

// Request is one call of an action, checked.
type Request struct {
	Op    Op
	Table string // the table's name; of an ARN what follows table/

	item       *jsontree.Object // of putItem
	key        *jsontree.Object // of the others
	condition  *condition       // nil if there is none
	update     *update          // nil if there is none
	projection *branch          // nil for the whole item
	returns    string           // ReturnValues
}

// The values of ReturnValues.
const (
	returnNone       = "NONE"
	returnAllOld     = "ALL_OLD"
	returnAllNew     = "ALL_NEW"
	returnUpdatedOld = "UPDATED_OLD"
	returnUpdatedNew = "UPDATED_NEW"
)

// Members of requests.
const (
	tableNameMember  = "TableName"
	keyMember        = "Key"
	itemMember       = "Item"
	conditionMember  = "ConditionExpression"
	updateMember     = "UpdateExpression"
	projectionMember = "ProjectionExpression"
	namesMember      = "ExpressionAttributeNames"
	valuesMember     = "ExpressionAttributeValues"
	returnMember     = "ReturnValues"
	capacityMember   = "ReturnConsumedCapacity"
	metricsMember    = "ReturnItemCollectionMetrics"
	onFailureMember  = "ReturnValuesOnConditionCheckFailure"
	consistentMember = "ConsistentRead"
)

// Parse checks the members of a call of an action; see DynamoDB's API Reference for what they mean. A member that is null is none.
// ConsistentRead, ReturnConsumedCapacity, ReturnItemCollectionMetrics and ReturnValuesOnConditionCheckFailure may be there, and
// change nothing. An error is an *Error.
func Parse(op Op, input *jsontree.Object) (*Request, error) {
	if input == nil {
		input = jsontree.NewObject(0)
	}
	p := &requestParser{op: op, input: input}
	for _, step := range []func() error{p.checkForm, p.checkConstraints, p.checkLegacy, p.checkReturnValues, p.readItem, p.readReferences, p.readExpressions} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return &p.r, nil
}

type requestParser struct {
	op    Op
	input *jsontree.Object
	r     Request
	refs  references
}

// expressions are the action's members that hold expressions, in the order in which they are read.
func (p *requestParser) expressions() []string {
	switch p.op {
	case Get:
		return []string{projectionMember}
	case Update:
		return []string{updateMember, conditionMember}
	}
	return []string{conditionMember}
}

// legacy are members of the time before expressions: they are refused.
func (p *requestParser) legacy() []string {
	switch p.op {
	case Get:
		return []string{"AttributesToGet"}
	case Update:
		return []string{"AttributeUpdates", "Expected", "ConditionalOperator"}
	}
	return []string{"Expected", "ConditionalOperator"}
}

// checkForm: every member is known, and of its type.
func (p *requestParser) checkForm() error {
	p.r.Op = p.op
	texts := append([]string{tableNameMember, capacityMember}, p.expressions()...)
	objects := []string{keyMember, namesMember}
	var booleans []string
	switch p.op {
	case Get:
		booleans = []string{consistentMember}
	case Put, Update, Delete:
		texts = append(texts, returnMember, metricsMember, onFailureMember)
		objects = append(objects, valuesMember)
		if p.op == Put {
			objects[0] = itemMember
		}
	default:
		return &Error{Serialization, fmt.Sprintf("%s is no action here: %s, %s, %s and %s are", p.op, Get, Put, Update, Delete)}
	}
	for name, v := range p.input.All() {
		var ok bool
		var typ string
		switch {
		case v == nil, slices.Contains(p.legacy(), name):
			continue
		case slices.Contains(texts, name):
			_, ok = v.(string)
			typ = "a STRING"
		case slices.Contains(objects, name):
			_, ok = v.(*jsontree.Object)
			typ = "an OBJECT"
		case slices.Contains(booleans, name):
			_, ok = v.(bool)
			typ = "a BOOLEAN"
		default:
			return &Error{Serialization, "The field '" + name + "' is not supported by " + string(p.op)}
		}
		if !ok {
			return mustBe(name, typ)
		}
	}
	return nil
}

// has reports whether the request has the member.
func (p *requestParser) has(member string) bool {
	v, _ := p.input.Get(member)
	return v != nil
}

func (p *requestParser) text(member string) (s string, ok bool) {
	v, _ := p.input.Get(member)
	s, ok = v.(string)
	return s, ok
}

func (p *requestParser) object(member string) *jsontree.Object {
	v, _ := p.input.Get(member)
	return object(v)
}

// checkConstraints collects the mistakes that DynamoDB reports together.
func (p *requestParser) checkConstraints() error {
	var list []string
	oneOf := func(member string, values ...string) {
		if s, ok := p.text(member); ok && !slices.Contains(values, s) {
			list = append(list, fmt.Sprintf("Value '%s' at '%s' failed to satisfy constraint: Member must satisfy enum value set: [%s]", s, lowerFirst(member), strings.Join(values, ", ")))
		}
	}
	notNull := func(member string) {
		if !p.has(member) {
			list = append(list, fmt.Sprintf("Value null at '%s' failed to satisfy constraint: Member must not be null", lowerFirst(member)))
		}
	}
	oneOf(capacityMember, "INDEXES", "TOTAL", "NONE")
	notNull(tableNameMember)
	if name, ok := p.text(tableNameMember); ok {
		if strings.HasPrefix(name, "arn:") {
			name = name[strings.LastIndexAny(name, "/")+1:]
		}
		p.r.Table = name
		if why := tableNameProblem(name); why != "" {
			list = append(list, why)
		}
	}
	if p.op == Put {
		notNull(itemMember)
	} else {
		notNull(keyMember)
	}
	oneOf(returnMember, returnAllNew, returnUpdatedOld, returnAllOld, returnNone, returnUpdatedNew)
	oneOf(metricsMember, "SIZE", "NONE")
	oneOf(onFailureMember, returnAllOld, returnNone)
	switch n := len(list); n {
	case 0:
		return nil
	case 1:
		return invalid("1 validation error detected: %s", list[0])
	default:
		return invalid("%d validation errors detected: %s", n, strings.Join(list, "; "))
	}
}

func lowerFirst(s string) string { return strings.ToLower(s[:1]) + s[1:] }

// checkLegacy refuses old members, and what is there for expressions without one.
func (p *requestParser) checkLegacy() error {
	old := slices.DeleteFunc(p.legacy(), func(m string) bool { return !p.has(m) })
	with := slices.DeleteFunc(p.expressions(), func(m string) bool { return !p.has(m) })
	switch {
	case len(old) > 0 && len(with) > 0:
		return invalid("Can not use both expression and non-expression parameters in the same request: Non-expression parameters: {%s} Expression parameters: {%s}",
			strings.Join(old, ", "), strings.Join(with, ", "))
	case len(old) > 0:
		return invalid("%s is of DynamoDB's time before expressions, and is not served: use %s", old[0], strings.Join(p.expressions(), " or "))
	case len(with) > 0:
		return nil
	case p.has(namesMember):
		return invalid("ExpressionAttributeNames can only be specified when using expressions")
	case p.has(valuesMember):
		verb := " is"
		if p.op == Update {
			verb = " are"
		}
		return invalid("ExpressionAttributeValues can only be specified when using expressions: %s%s null", strings.Join(p.expressions(), " and "), verb)
	}
	return nil
}

func (p *requestParser) checkReturnValues() error {
	p.r.returns = returnNone
	if s, ok := p.text(returnMember); ok {
		p.r.returns = s
	}
	if p.op != Update && p.r.returns != returnNone && p.r.returns != returnAllOld {
		return invalid("ReturnValues can only be ALL_OLD or NONE")
	}
	return nil
}

func (p *requestParser) readItem() (err error) {
	if p.op != Put {
		p.r.key, err = canonicalItem(p.object(keyMember))
		return err
	}
	p.r.item, err = canonicalItem(p.object(itemMember))
	if err == nil && itemSize(p.r.item) > maxItem {
		err = invalid("Item size has exceeded the maximum allowed size")
	}
	return err
}

// readReferences reads what stands for names and values in expressions.
func (p *requestParser) readReferences() error {
	p.refs = references{names: map[string]string{}, values: map[string]*jsontree.Object{}, used: map[string]bool{}}
	if names := p.object(namesMember); names != nil {
		if err := checkReferences(namesMember, '#', names); err != nil {
			return err
		}
		for key, v := range names.All() {
			s, err := text(key, v)
			if err != nil {
				return err
			}
			if s == "" {
				return invalid("%s contains invalid value: the name of an attribute is not empty for key %s", namesMember, key)
			}
			p.refs.names[key] = s
		}
	}
	if values := p.object(valuesMember); values != nil {
		if err := checkReferences(valuesMember, ':', values); err != nil {
			return err
		}
		for key, v := range values.All() {
			c, err := canonical(v, 1)
			if e, ok := errors.AsType[*Error](err); ok && e.Name == Validation {
				return invalid("%s contains invalid value: %s for key %s", valuesMember, e.Message, key)
			}
			if err != nil {
				return err
			}
			p.refs.values[key] = c
		}
	}
	return nil
}

// checkReferences: there are some, and each is the prefix and a name.
func checkReferences(member string, prefix byte, o *jsontree.Object) error {
	if o.Len() == 0 {
		return invalid("%s must not be empty", member)
	}
	for key := range o.All() {
		tokens := tokensOf(key)
		if len(tokens) != 2 || tokens[0].text != key || key[0] != prefix || tokens[0].kind == symbol {
			return invalid(`%s contains invalid key: Syntax error; key: "%s"`, member, key)
		}
	}
	return nil
}

func (p *requestParser) readExpressions() error {
	for _, member := range p.expressions() {
		source, ok := p.text(member)
		if !ok {
			continue
		}
		var err error
		switch member {
		case conditionMember:
			p.r.condition, err = parseCondition(source, &p.refs)
		case updateMember:
			p.r.update, err = parseUpdate(source, &p.refs)
		case projectionMember:
			p.r.projection, err = parseProjection(source, &p.refs)
		}
		if err != nil {
			return err
		}
	}
	if list := unused(&p.refs, p.refs.names); list != "" {
		return invalid("Value provided in ExpressionAttributeNames unused in expressions: keys: {%s}", list)
	}
	if list := unused(&p.refs, p.refs.values); list != "" {
		return invalid("Value provided in ExpressionAttributeValues unused in expressions: keys: {%s}", list)
	}
	if p.r.update == nil {
		return nil
	}
	for _, c := range p.r.update.changes {
		if p.r.key.Has(c.path[0].name) {
			return invalid(invalidParameter+"Cannot update attribute %s. This attribute is part of the key", c.path[0].name)
		}
	}
	return nil
}
