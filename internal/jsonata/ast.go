package jsonata

type kind uint8

const (
	kindPath kind = iota + 1
	kindBinary
	kindArray
	kindObject
	kindNegate
	kindName
	kindString
	kindNumber
	kindValue
	kindWildcard
	kindDescendant
	kindParent
	kindCondition
	kindBlock
	kindBind
	kindRegex
	kindCall
	kindVariable
	kindLambda
	kindPartial
	kindApply
	kindTransform
	kindSort
	kindPlaceholder // the ? of a partial application

	// What follows is of the parser only; process makes other nodes of it.
	kindDot
	kindFilter
	kindGroup
	kindOrder
	kindFocus
	kindIndex
	kindKeyword // and, or, in as names
	kindEnd
)

func (k kind) String() string {
	switch k {
	case kindPath:
		return "path"
	case kindBinary:
		return "binary"
	case kindArray, kindObject, kindNegate:
		return "unary"
	case kindName:
		return "name"
	case kindString:
		return "string"
	case kindNumber:
		return "number"
	case kindValue:
		return "value"
	case kindWildcard:
		return "wildcard"
	case kindDescendant:
		return "descendant"
	case kindParent:
		return "parent"
	case kindCondition:
		return "condition"
	case kindBlock:
		return "block"
	case kindBind:
		return "bind"
	case kindRegex:
		return "regex"
	case kindCall:
		return "function"
	case kindVariable:
		return "variable"
	case kindLambda:
		return "lambda"
	case kindPartial:
		return "partial"
	case kindApply:
		return "apply"
	case kindTransform:
		return "transform"
	case kindSort:
		return "sort"
	default:
		return "operator"
	}
}

// node is a node of the syntax tree, before and after process. Which fields mean something depends on its kind.
type node struct {
	kind kind
	pos  int // of its token

	text   string  // name, string, variable without $, or operator
	number float64 // of a number; of a name that is boxed in value
	value  any     // what a literal gives
	regex  *regex

	left, right *node   // operands; condition's then and else; transform's update and deletion
	test        *node   // condition, transform's pattern, the callee, the body of a lambda, what is negated
	list        []*node // items, arguments, expressions of a block, steps of a path
	pairs       [][2]*node
	terms       []term

	signature *signature
	thunk     bool // a lambda that stands for a tail call
	frame     bool // a block that binds variables
	free      bool // a variable that no frame can hold
	builtin   *Function
	chain     *node // of a ~>: the function that composes two
	plain     int   // a path's number of leading steps that are just names, after the first

	// What process adds.
	predicates    []stage // applied to the value of the node
	stages        []stage // applied to the value as a step of a path
	group         *node   // a kindObject
	keepArray     bool    // []
	keepSingleton bool    // of a path: one of its steps has []
	cons          bool    // an array constructor that begins or ends a path
	tuple         bool    // makes a stream of tuples of the path
	focus         string  // @$focus
	index         string  // #$index
	ancestor      *slot
	slot          *slot // of a kindParent
	seeking       []*slot
}

type term struct {
	descending bool
	by         *node
}

// stage is a filter or, if by is nil, an index binding of a step.
type stage struct {
	by    *node
	index string
	pos   int
}

// slot is what a % stands for: the value so many levels above it, which is bound to the label when it is passed on the way.
type slot struct {
	label string
	level int
}
