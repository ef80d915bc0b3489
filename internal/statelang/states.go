package statelang

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/weir-dev/weir/internal/jsontree"
)

func (f *fields) pass() {
	f.flows()
	f.output()
	f.state.pass = &pass{}
	if f.jsonata() {
		return
	}
	f.state.arguments = f.template("Parameters")
	f.state.resultPath = f.resultPath()
	f.state.pass.result, f.state.pass.given = f.node.get("Result")
}

func (f *fields) task() {
	f.flows()
	f.output()
	f.payload()
	t := &task{}
	f.state.task = t
	t.Resource = f.resource("Resource", true)
	if r := t.Resource; f.p.options.Type == Express {
		switch {
		case r.Kind == Activity:
			f.node.problem("Resource", "an EXPRESS state machine has no activities")
		case r.Pattern != RequestResponse:
			f.node.problem("Resource", "an EXPRESS state machine does not wait for .%s", r.Pattern)
		}
	}
	t.timeout = f.number("TimeoutSeconds", 1, maxSeconds, true)
	t.heartbeat = f.number("HeartbeatSeconds", 1, maxSeconds, true)
	if timeout, ok := literalNumber(t.timeout); ok {
		if beat, ok := literalNumber(t.heartbeat); ok && beat >= timeout {
			f.node.problem("HeartbeatSeconds", "must be less than TimeoutSeconds")
		}
	}
	t.credentials = f.credentials()
}

func literalNumber(x expr) (float64, bool) {
	l, ok := x.(literal)
	if !ok {
		return 0, false
	}
	return jsontree.Float(l.value)
}

// payload reads Parameters, ResultSelector and ResultPath, or Arguments.
func (f *fields) payload() {
	if f.jsonata() {
		f.state.arguments = f.value("Arguments")
		return
	}
	f.state.arguments = f.template("Parameters")
	f.state.resultSelector = f.template("ResultSelector")
	f.state.resultPath = f.resultPath()
}

func (f *fields) resource(field string, required bool) Resource {
	text, ok := f.node.text(field)
	if !ok {
		if required && !f.node.obj.Has(field) {
			f.node.problem(field, "is missing: the ARN, the URL or the name of what is called")
		}
		return Resource{}
	}
	r, err := parseResource(text)
	if err == nil && f.p.options.Supports != nil {
		err = f.p.options.Supports(r)
	}
	if err != nil {
		f.node.problem(field, "%v", err)
	}
	return r
}

// credentials reads Credentials: an object with a RoleArn, or roleArn.
func (f *fields) credentials() expr {
	v, ok := f.node.get("Credentials")
	if !ok {
		return nil
	}
	obj, isObject := v.(*jsontree.Object)
	if !isObject {
		f.node.problem("Credentials", "must be an object with a RoleArn, not %s", kindOf(v))
		return nil
	}
	has := false
	for key := range obj.All() {
		name := key
		if !f.jsonata() {
			name = strings.TrimSuffix(key, ".$")
		}
		has = has || strings.EqualFold(name, "RoleArn")
	}
	if !has {
		f.node.problem("Credentials", "has no RoleArn")
	}
	if f.jsonata() {
		return f.valueOf("Credentials", v)
	}
	return f.templateOf("Credentials", v)
}

func (f *fields) choice() {
	f.flows()
	f.output()
	f.assign(&f.state.assign)
	c := &choice{}
	f.state.choice = c
	rules, ok := f.node.children("Choices")
	if !ok || len(rules) == 0 {
		f.node.problem("Choices", "must have at least one rule")
	}
	for _, n := range rules {
		in := &fields{node: n, p: f.p, b: f.b, state: f.state, language: f.language}
		r := rule{}
		if !n.obj.Has("Next") {
			n.problem("Next", "is missing: it names the state that goes on if the rule holds")
		}
		r.next = f.b.leadTo(f.state, n, "Next")
		in.assign(&r.assign)
		if f.jsonata() {
			if !n.obj.Has("Condition") {
				n.problem("Condition", "is missing: a JSONata expression between {%% and %%}, or true or false")
			}
			r.query = in.condition()
			r.output = in.value("Output")
		} else {
			r.test = in.test(0)
		}
		n.end("a rule in " + string(f.language))
		c.rules = append(c.rules, r)
	}
	if f.node.has("Default") {
		c.other = f.b.leadTo(f.state, f.node, "Default")
	}
}

// condition reads Condition: an expression, or true or false.
func (f *fields) condition() expr {
	v, ok := f.node.get("Condition")
	if !ok {
		return nil
	}
	if b, isBool := v.(bool); isBool {
		return literal{b}
	}
	text, isText := v.(string)
	if query, ok := isQuery(text); isText && ok {
		return f.query("Condition", query)
	}
	f.node.problem("Condition", "must be a JSONata expression between {%% and %%}, or true or false, not %s", shown(v))
	return nil
}

const maxTestDepth = 64

// test reads And, Or, Not, or a comparison.
func (f *fields) test(depth int) test {
	if depth > maxTestDepth {
		f.node.problem("", "more than %d conditions are in each other", maxTestDepth)
		return and{}
	}
	var found []string
	for field := range f.node.obj.All() {
		_, _, isOperator := operatorOf(field)
		if isOperator || field == "And" || field == "Or" || field == "Not" {
			found = append(found, field)
		}
	}
	if len(found) != 1 {
		f.node.problem("", "must have one condition: And, Or, Not, or a comparison such as NumericEquals; it has %s", count(found))
		f.node.known = append(append(f.node.known, found...), "Variable")
		return and{}
	}
	switch field := found[0]; field {
	case "And", "Or":
		list, _ := f.node.children(field)
		if len(list) == 0 {
			f.node.problem(field, "must have at least one condition")
		}
		tests := make([]test, 0, len(list))
		for _, n := range list {
			tests = append(tests, f.inner(n, depth))
		}
		if field == "And" {
			return and(tests)
		}
		return or(tests)
	case "Not":
		n, ok := f.node.child(field)
		if !ok {
			return and{}
		}
		return not{f.inner(n, depth)}
	default:
		return f.comparison(field)
	}
}

func count(found []string) string {
	if len(found) == 0 {
		return "none"
	}
	return strings.Join(found, " and ")
}

func (f *fields) inner(n *node, depth int) test {
	in := &fields{node: n, p: f.p, b: f.b, state: f.state, language: f.language}
	t := in.test(depth + 1)
	n.end("a condition")
	return t
}

func (f *fields) comparison(field string) test {
	c := &comparison{}
	op, byPath, _ := operatorOf(field)
	c.operator = op
	if !f.node.obj.Has("Variable") {
		f.node.problem("Variable", "is missing: the path of what is compared")
	}
	c.variable = f.path("Variable")
	v, _ := f.node.get(field)
	if byPath {
		if p := f.pathOf(field, v); p != nil {
			c.value = p
		}
		return c
	}
	var good bool
	var want string
	switch op.kind {
	case ofStrings, matches:
		_, good = v.(string)
		want = "a text"
	case ofNumbers:
		_, good = jsontree.Float(v)
		want = "a number"
	case ofTimestamps:
		_, good = timestamp(v)
		want = "a timestamp such as 2026-11-29T12:00:00Z"
	default:
		_, good = v.(bool)
		want = "true or false"
	}
	if !good {
		f.node.problem(field, "must be %s, not %s", want, shown(v))
	}
	c.value = literal{v}
	return c
}

func (f *fields) wait() {
	f.flows()
	f.output()
	w := &wait{}
	f.state.wait = w
	fieldsOf := []string{"Seconds", "Timestamp"}
	if !f.jsonata() {
		fieldsOf = append(fieldsOf, "SecondsPath", "TimestampPath")
	}
	f.node.oneOf(fieldsOf...)
	if !slices.ContainsFunc(fieldsOf, f.node.obj.Has) {
		f.node.problem("", "must have one of %s", strings.Join(fieldsOf, ", "))
	}
	for _, field := range fieldsOf {
		if f.node.obj.Has(field) {
			w.field = field
		}
	}
	w.seconds = f.number("Seconds", 0, maxSeconds, true)
	if !f.jsonata() {
		if p := f.path("TimestampPath"); p != nil {
			w.until = p
		}
	}
	if v, ok := f.node.get("Timestamp"); ok {
		text, isText := v.(string)
		query, isQuery := isQuery(text)
		_, good := timestamp(v)
		switch {
		case isText && isQuery && f.jsonata():
			w.until = f.query("Timestamp", query)
		case good:
			w.until = literal{v}
		default:
			f.node.problem("Timestamp", "must be a timestamp such as 2026-11-29T12:00:00Z (RFC 3339), not %s", shown(v))
		}
	}
}

func (f *fields) fail() {
	f.state.fail = &fail{}
	if f.jsonata() {
		f.state.fail.err, f.state.fail.cause = f.valueText("Error"), f.valueText("Cause")
		return
	}
	f.state.fail.err, f.state.fail.cause = f.textOrPath("Error"), f.textOrPath("Cause")
}

func (f *fields) valueText(field string) expr {
	if _, ok := f.node.text(field); !ok {
		return nil
	}
	return f.value(field)
}

func (f *fields) textOrPath(field string) expr {
	f.node.oneOf(field, field+"Path")
	if x := f.pathOrCall(field + "Path"); x != nil {
		return x
	}
	text, ok := f.node.text(field)
	if !ok {
		return nil
	}
	return literal{text}
}

func (f *fields) parallel() {
	f.flows()
	f.output()
	f.payload()
	branches, ok := f.node.children("Branches")
	if !ok || len(branches) == 0 {
		f.node.problem("Branches", "must have at least one branch")
	}
	for _, n := range branches {
		f.state.branches = append(f.state.branches, f.p.machine(n))
		n.end("a branch")
	}
}

func (f *fields) iterate() {
	f.flows()
	f.output()
	m := &iterate{}
	f.state.iterate = m
	f.node.oneOf("ItemProcessor", "Iterator")
	f.node.oneOf("ItemSelector", "Parameters")
	name := "ItemProcessor"
	if f.node.obj.Has("Iterator") {
		name = "Iterator"
	}
	if !f.node.obj.Has(name) {
		f.node.problem(name, "is missing: the machine that each item goes through")
	}
	if n, ok := f.node.child(name); ok {
		m.distributed = f.processorConfig(n)
		m.processor = f.p.machine(n)
		n.end("an " + name)
	}
	if f.jsonata() {
		m.itemsField = "Items"
		m.items = f.items()
		m.selector = f.value("ItemSelector")
	} else {
		m.itemsField = "ItemsPath"
		if p := f.path("ItemsPath"); p != nil {
			m.items = p
		}
		m.selector = f.template("ItemSelector")
		if p := f.template("Parameters"); p != nil {
			m.selector = p
		}
		f.state.resultSelector = f.template("ResultSelector")
		f.state.resultPath = f.resultPath()
	}
	m.concurrency = f.number("MaxConcurrency", 0, maxSeconds, true)
	m.tolerated = f.number("ToleratedFailureCount", 0, maxSeconds, true)
	m.percentage = f.number("ToleratedFailurePercentage", 0, 100, false)
	f.label(m)
	f.distributedFields(m)
}

// items reads Items: an expression, or an array that may have some.
func (f *fields) items() expr {
	v, ok := f.node.get("Items")
	if !ok {
		return nil
	}
	_, isList := v.([]any)
	text, isText := v.(string)
	if _, isExpr := isQuery(text); !isList && (!isText || !isExpr) {
		f.node.problem("Items", "must be an array or a JSONata expression between {%% and %%}, not %s", shown(v))
		return nil
	}
	return f.valueOf("Items", v)
}

func (f *fields) label(m *iterate) {
	label, ok := f.node.text("Label")
	if !ok {
		return
	}
	m.label = label
	if !m.distributed {
		f.node.problem("Label", "is for a distributed map only: ProcessorConfig.Mode DISTRIBUTED")
	}
	if n := utf8.RuneCountInString(label); n == 0 || n > maxLabelChars {
		f.node.problem("Label", "has %d characters: 1 to %d are allowed", n, maxLabelChars)
	}
	if i := strings.IndexFunc(label, func(r rune) bool {
		return strings.ContainsRune(labelForbidden, r) || unicode.IsControl(r) || unicode.IsSpace(r) || r == utf8.RuneError
	}); i >= 0 {
		r, _ := utf8.DecodeRuneInString(label[i:])
		f.node.problem("Label", "has the character %q, which is not allowed", r)
	}
}

// processorConfig reports whether a processor is distributed.
func (f *fields) processorConfig(n *node) bool {
	c, ok := n.child("ProcessorConfig")
	if !ok {
		return false
	}
	mode, ok := c.text("Mode")
	if ok && mode != "INLINE" && mode != "DISTRIBUTED" {
		c.problem("Mode", "is %q: it must be INLINE or DISTRIBUTED", mode)
	}
	distributed := mode == "DISTRIBUTED"
	kind, ok := c.text("ExecutionType")
	switch {
	case ok && Type(kind) != Standard && Type(kind) != Express:
		c.problem("ExecutionType", "is %q: it must be %s or %s", kind, Standard, Express)
	case distributed && !c.obj.Has("ExecutionType"):
		c.problem("ExecutionType", "is missing: a distributed map needs %s or %s", Standard, Express)
	case ok && !distributed:
		c.problem("ExecutionType", "is for a distributed map only")
	}
	if distributed && f.p.options.Type == Express {
		c.problem("Mode", "an EXPRESS state machine has no distributed maps")
	}
	c.end("a ProcessorConfig")
	return distributed
}

// distributedFields reads what only a distributed map has.
func (f *fields) distributedFields(m *iterate) {
	for _, field := range []string{"ItemReader", "ItemBatcher", "ResultWriter"} {
		if f.node.obj.Has(field) && !m.distributed {
			f.node.problem(field, "is for a distributed map only: ProcessorConfig.Mode DISTRIBUTED")
		}
	}
	if in, ok := f.in("ItemReader"); ok {
		m.reader = in.reader()
	}
	if in, ok := f.in("ItemBatcher"); ok {
		m.batcher = in.batcher()
	}
	if in, ok := f.in("ResultWriter"); ok {
		m.writer = &writer{resource: in.resource("Resource", false)}
		m.writer.arguments = in.arguments()
		if c, ok := in.in("WriterConfig"); ok {
			m.writer.config.OutputType, _ = c.node.text("OutputType")
			m.writer.config.Transformation, _ = c.node.text("Transformation")
			if err := m.writer.config.Validate(); err != nil {
				c.node.problem("", "%v", err)
			}
			c.node.end("a WriterConfig")
		}
		in.node.end("a ResultWriter")
	}
}

func (f *fields) arguments() expr {
	if f.jsonata() {
		return f.value("Arguments")
	}
	return f.template("Parameters")
}

func (f *fields) reader() *reader {
	r := &reader{resource: f.resource("Resource", true)}
	r.arguments = f.arguments()
	if r.arguments == nil {
		f.node.problem("", "must say what is read: Bucket and Key in Parameters, or in Arguments with JSONata")
	}
	r.config.delimiter = ','
	if c, ok := f.in("ReaderConfig"); ok {
		c.readerConfig(&r.config)
	}
	f.node.end("an ItemReader")
	return r
}

func (f *fields) readerConfig(c *readerConfig) {
	c.inputType, _ = f.node.text("InputType")
	if c.inputType != "" && !slices.Contains([]string{"JSON", "JSONL", "CSV"}, c.inputType) {
		f.node.problem("InputType", "is %q: it must be JSON, JSONL or CSV", c.inputType)
	}
	c.pointer, _ = f.node.text("ItemsPointer")
	location, _ := f.node.text("CSVHeaderLocation")
	switch location {
	case "":
		if c.inputType == "CSV" {
			f.node.problem("CSVHeaderLocation", "is missing: FIRST_ROW or GIVEN")
		}
	case "FIRST_ROW":
		c.firstRow = true
	case "GIVEN":
		if !f.node.obj.Has("CSVHeaders") {
			f.node.problem("CSVHeaders", "is missing: CSVHeaderLocation is GIVEN")
		}
	default:
		f.node.problem("CSVHeaderLocation", "is %q: it must be FIRST_ROW or GIVEN", location)
	}
	if v, ok := f.node.get("CSVHeaders"); ok {
		list, isList := v.([]any)
		if !isList {
			f.node.problem("CSVHeaders", "must be an array of texts, not %s", kindOf(v))
		}
		for i, e := range list {
			text, isText := e.(string)
			if !isText {
				f.node.problem(fmt.Sprintf("CSVHeaders[%d]", i), "must be a text, not %s", kindOf(e))
			}
			c.headers = append(c.headers, text)
		}
	}
	if name, ok := f.node.text("CSVDelimiter"); ok {
		delimiter, known := map[string]rune{"COMMA": ',', "PIPE": '|', "SEMICOLON": ';', "SPACE": ' ', "TAB": '\t'}[name]
		if !known {
			f.node.problem("CSVDelimiter", "is %q: it must be COMMA, PIPE, SEMICOLON, SPACE or TAB", name)
		}
		c.delimiter = delimiter
	}
	c.maxItems = f.number("MaxItems", 0, maxSeconds, true)
	f.node.end("a ReaderConfig")
}

func (f *fields) batcher() *batcher {
	b := &batcher{
		items: f.number("MaxItemsPerBatch", 1, maxSeconds, true),
		bytes: f.number("MaxInputBytesPerBatch", 1, MaxDataBytes, true),
	}
	if b.items == nil && b.bytes == nil {
		f.node.problem("", "must have MaxItemsPerBatch or MaxInputBytesPerBatch")
	}
	if f.jsonata() {
		b.input = f.value("BatchInput")
	} else {
		b.input = f.template("BatchInput")
	}
	f.node.end("an ItemBatcher")
	return b
}
