package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	k8sjson "sigs.k8s.io/json"
	k8syaml "sigs.k8s.io/yaml"

	"github.com/weir-dev/weir/api/v1alpha1"
	"github.com/weir-dev/weir/internal/catalog"
)

const (
	weirAPIVersion    = "weir.dev/v1alpha1"
	knativeAPIVersion = "serving.knative.dev/v1"

	kindAPI     = "API"
	kindQueue   = "Queue"
	kindMapping = "EventSourceMapping"
	kindMachine = "StateMachine"
	kindService = "Service"
	kindList    = "List"
)

func weirKinds() []string { return []string{kindAPI, kindQueue, kindMapping, kindMachine} }

// Objects are the resources that Weir reads, as the user wrote them: not defaulted, not validated.
type Objects struct {
	APIs     []Resource[v1alpha1.API]
	Queues   []Resource[v1alpha1.Queue]
	Mappings []Resource[v1alpha1.EventSourceMapping]
	Machines []Resource[v1alpha1.StateMachine]
	Services []Resource[servingv1.Service]

	// Elsewhere are objects of the cluster that are not among these, and why: "is of class b".
	Elsewhere map[Ref]string
	// DrainedElsewhere are the names of mappings among those, by the queue that they name.
	DrainedElsewhere map[catalog.Key]string

	// incomplete means that what is missing may be elsewhere: some document could not be read at all, or there is more in
	// the cluster.
	incomplete bool
}

// Resource is an object and where it comes from.
type Resource[T any] struct {
	Object *T
	Origin Origin // zero for an object from a cluster
}

// Origin is where an object was written.
type Origin struct {
	File string

	offset int   // lines of the file before the document
	root   *node // lines of the document
	broken map[string]bool
}

// line returns the line of the file that has the field at path, or its nearest ancestor.
func (s *Origin) line(path string) int {
	if s.File == "" {
		return 0
	}
	return s.offset + max(1, s.root.lineAt(path))
}

// reported reports whether the shape of path, or of an ancestor, is a mistake already: what was decoded there is not
// what the user wrote, and a second message would only confuse.
func (s *Origin) reported(path string) bool {
	if len(s.broken) == 0 {
		return false
	}
	for i, c := range path {
		if (c == '.' || c == '[') && s.broken[path[:i]] {
			return true
		}
	}
	return s.broken[path]
}

func (o *Objects) add(more *Objects) {
	o.APIs = append(o.APIs, more.APIs...)
	o.Queues = append(o.Queues, more.Queues...)
	o.Mappings = append(o.Mappings, more.Mappings...)
	o.Machines = append(o.Machines, more.Machines...)
	o.Services = append(o.Services, more.Services...)
	o.incomplete = o.incomplete || more.incomplete
}

// Len is how many there are.
func (o *Objects) Len() int {
	return len(o.APIs) + len(o.Queues) + len(o.Mappings) + len(o.Machines) + len(o.Services)
}

// setNamespace puts the objects that name no namespace into this one, as kubectl apply --namespace does.
func (o *Objects) setNamespace(name string) {
	setNamespace(o.APIs, name)
	setNamespace(o.Queues, name)
	setNamespace(o.Mappings, name)
	setNamespace(o.Machines, name)
	setNamespace(o.Services, name)
}

func setNamespace[T any, P interface {
	*T
	metav1.Object
}](rs []Resource[T], name string) {
	for _, r := range rs {
		if o := P(r.Object); o.GetNamespace() == "" {
			o.SetNamespace(name)
		}
	}
}

// Parse reads one YAML (or JSON) file of any number of documents. It returns the objects that it could
// read, even in part, beside every mistake in the shape of the file. Of a list (kind: List) each item is an object,
// as to kubectl. Kubernetes' own kinds (ConfigMap, Secret, …) are for the cluster and left alone.
func Parse(file string, data []byte) (*Objects, Errors) {
	return parse(file, data, MaxFileBytes, MaxDocuments)
}

// ParseStream is [Parse] for what was rendered into one stream, such as by helm template, which may be larger than a file.
func ParseStream(name string, data []byte) (*Objects, Errors) {
	return parse(name, data, MaxStreamBytes, MaxStreamDocuments)
}

func parse(file string, data []byte, maxBytes, maxDocuments int) (*Objects, Errors) {
	p := &parser{file: file, most: maxDocuments}
	switch docs := splitDocuments(data); {
	case len(data) > maxBytes:
		p.unreadable(0, fmt.Sprintf("is larger than %d MiB: split it", maxBytes>>20))
	case len(docs) > maxDocuments:
		p.unreadable(0, fmt.Sprintf("has %d documents; at most %d are read from one: split it", len(docs), maxDocuments))
	default:
		p.resources = len(docs)
		for _, d := range docs {
			p.document(d)
		}
	}
	return &p.objs, p.errs.sorted()
}

type parser struct {
	file string
	objs Objects
	errs Errors

	resources, most int // documents and the items of lists: how many there are so far, and may be
}

func (p *parser) fail(line int, object, field, msg string) {
	p.errs = append(p.errs, &Error{File: p.file, Line: line, Object: object, Field: field, Msg: msg})
}

func (p *parser) unreadable(line int, msg string) {
	p.objs.incomplete = true
	p.fail(line, "", "", msg)
}

type document struct {
	text   []byte
	offset int // lines before it
}

// splitDocuments cuts at YAML's document markers, so that a broken document does not hide the mistakes of those after
// it. A line that starts with a marker is one everywhere, even in a block scalar.
func splitDocuments(data []byte) []document {
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	var docs []document
	start, startLine, line := 0, 0, 0
	cut := func(end int) {
		if text := data[start:end]; !blank(text) {
			docs = append(docs, document{text, startLine})
		}
	}
	for pos := 0; pos < len(data); line++ {
		end := len(data)
		if i := bytes.IndexByte(data[pos:], '\n'); i >= 0 {
			end = pos + i + 1
		}
		switch l := data[pos:end]; {
		case isMarker(l, "---"):
			cut(pos)
			start, startLine = pos, line
		case isMarker(l, "..."):
			cut(pos)
			start, startLine = end, line+1
		}
		pos = end
	}
	cut(len(data))
	return docs
}

func isMarker(line []byte, marker string) bool {
	rest, ok := bytes.CutPrefix(line, []byte(marker))
	return ok && (len(rest) == 0 || bytes.ContainsRune([]byte(" \t\r\n"), rune(rest[0])))
}

// blank reports whether a document has nothing but markers, directives and comments.
func blank(text []byte) bool {
	for l := range bytes.Lines(text) {
		if isMarker(l, "---") {
			l = l[len("---"):]
		}
		l = bytes.TrimSpace(l)
		if len(l) > 0 && l[0] != '#' && l[0] != '%' {
			return false
		}
	}
	return true
}

func (p *parser) document(d document) {
	before := len(p.errs)
	value, ok := p.value(d)
	if !ok || value == nil {
		return
	}
	src := Origin{File: p.file, offset: d.offset}
	root := new(node)
	if err := yaml.Unmarshal(d.text, root); err == nil {
		src.root = root
	}
	if !p.resource(value, src, "") {
		p.errs = p.errs[:before] // keys given twice in what is the cluster's are not ours to judge
	}
}

// value converts a document to JSON, as kubectl does, and reports invalid YAML and duplicate keys.
func (p *parser) value(d document) (any, bool) {
	raw, err := k8syaml.YAMLToJSONStrict(d.text)
	if te := (*yaml.TypeError)(nil); errors.As(err, &te) {
		for _, msg := range te.Errors {
			line, msg := cutLine(msg)
			if key, ok := strings.CutSuffix(msg, " already set in map"); ok {
				msg = key + " is given twice: remove one"
			}
			p.fail(d.offset+max(1, line), "", "", msg)
		}
		raw, err = k8syaml.YAMLToJSON(d.text)
	}
	var value any
	if err == nil {
		dec := json.NewDecoder(bytes.NewReader(raw))
		dec.UseNumber()
		err = dec.Decode(&value)
	}
	if err != nil {
		line, msg := cutLine(strings.TrimPrefix(err.Error(), "yaml: "))
		p.unreadable(d.offset+max(1, line), "is not valid YAML: "+msg)
		return nil, false
	}
	return value, true
}

// resource reads a document, or the item of a list that is at path of it, and reports whether it is for Weir.
func (p *parser) resource(value any, src Origin, path string) bool {
	m, ok := value.(map[string]any)
	if !ok {
		p.objs.incomplete = true
		p.fail(src.line(""), "", path, fmt.Sprintf("must be a resource with apiVersion, kind, metadata and spec, not %s", describe(value)))
		return true
	}
	apiVersion, okV := text(m, "apiVersion")
	kind, okK := text(m, "kind")
	if !okV || !okK {
		p.objs.incomplete = true
		for name, ok := range map[string]bool{"apiVersion": okV, "kind": okK} {
			if !ok {
				p.fail(src.line(name), "", join(path, name), fmt.Sprintf("is missing: every resource says apiVersion and kind, such as apiVersion: %s, kind: %s", weirAPIVersion, kindAPI))
			}
		}
		return true
	}
	object := kind
	if meta, ok := m["metadata"].(map[string]any); ok {
		if name, ok := text(meta, "name"); ok {
			object += " " + name
		}
	}
	switch {
	case isList(m, kind):
		return p.list(m, kind, src, path)
	case apiVersion == weirAPIVersion && kind == kindAPI:
		p.oddSchemas(src, object)
		decode(p, m, src, object, &p.objs.APIs)
	case apiVersion == weirAPIVersion && kind == kindQueue:
		decode(p, m, src, object, &p.objs.Queues)
	case apiVersion == weirAPIVersion && kind == kindMapping:
		decode(p, m, src, object, &p.objs.Mappings)
	case apiVersion == weirAPIVersion && kind == kindMachine:
		p.oddDefinition(src, object)
		decode(p, m, src, object, &p.objs.Machines)
	case apiVersion == knativeAPIVersion && kind == kindService:
		decode(p, m, src, object, &p.objs.Services)
	default:
		return p.misspelled(apiVersion, kind, object, src)
	}
	return true
}

// isList reports whether kubectl takes the items of m for resources: it knows a list by its items. A kind of a list's name without
// any is a resource as any other, but for List itself.
func isList(m map[string]any, kind string) bool {
	_, ok := m["items"].([]any)
	return kind == kindList || ok && strings.HasSuffix(kind, kindList)
}

// list reads the items of a list, and reports whether one of them is for Weir, or can't be read. Items of a typed list, such as
// QueueList, may leave apiVersion and kind to it.
func (p *parser) list(m map[string]any, kind string, src Origin, path string) (ours bool) {
	items, ok := m["items"].([]any)
	path = join(path, "items")
	if !ok {
		p.objs.incomplete = true
		p.fail(src.line("items"), kindList, path, "must be a list (- item) of resources, not "+describe(m["items"]))
		return true
	}
	if p.resources += len(items); p.resources > p.most {
		p.unreadable(src.line("items"), fmt.Sprintf("has %d resources with the items of this list; at most %d are read from one: split it", p.resources, p.most))
		return true
	}
	itemKind := strings.TrimSuffix(kind, kindList)
	for i, item := range items {
		if fields, ok := item.(map[string]any); ok && itemKind != "" && fields["apiVersion"] == nil && fields["kind"] == nil {
			fields["apiVersion"], fields["kind"] = m["apiVersion"], itemKind
		}
		at := Origin{File: src.File, offset: src.offset, root: src.root.item("items", i)}
		ours = p.resource(item, at, fmt.Sprintf("%s[%d]", path, i)) || ours
	}
	return ours
}

// oddSchemas refuses schemas that don't say what they seem to: in YAML 1.1, which kubectl reads too, a property y is true.
func (p *parser) oddSchemas(src Origin, object string) {
	if src.root == nil || src.root.fields["spec"].value == nil {
		return
	}
	routes := src.root.fields["spec"].value.fields["routes"].value
	if routes == nil {
		return
	}
	for i, route := range routes.items {
		if route == nil {
			continue
		}
		p.odds(src, object, route.fields["schema"].value, routePath(i)+".schema")
	}
}

// oddDefinition does the same for the definition of a state machine.
func (p *parser) oddDefinition(src Origin, object string) {
	if src.root == nil || src.root.fields["spec"].value == nil {
		return
	}
	p.odds(src, object, src.root.fields["spec"].value.fields["definition"].value, "spec.definition")
}

func (p *parser) odds(src Origin, object string, n *node, path string) {
	n.odds(path, func(line int, path, text string) {
		p.fail(src.offset+line, object, path, fmt.Sprintf("%s without quotes is true or false, as kubectl reads it too: write %q", text, text))
	})
}

// misspelled refuses what is meant for Weir but misspelled, and reports whether it is; everything else is for the cluster.
func (p *parser) misspelled(apiVersion, kind, object string, src Origin) bool {
	group, version, _ := strings.Cut(apiVersion, "/")
	if version == "" {
		group = "" // v1
	}
	weir, knative := v1alpha1.GroupVersion.Group, servingv1.SchemeGroupVersion.Group
	switch {
	case apiVersion == weirAPIVersion:
		p.fail(src.line("kind"), object, "kind", fmt.Sprintf("unknown kind %q in %s; there are %s%s",
			kind, weirAPIVersion, strings.Join(weirKinds(), ", "), didYouMean(kind, weirKinds())))
	case group == weir:
		p.fail(src.line("apiVersion"), object, "apiVersion", fmt.Sprintf("unknown version %q; write %s", apiVersion, weirAPIVersion))
	case group == knative && kind == kindService:
		p.fail(src.line("apiVersion"), object, "apiVersion", fmt.Sprintf("unknown version %q; write %s", apiVersion, knativeAPIVersion))
	case slices.Contains(weirKinds(), kind) || nearest(group, []string{weir}) != "":
		p.fail(src.line("apiVersion"), object, "apiVersion", fmt.Sprintf("%q is not Weir's; for Weir's %s write %s",
			apiVersion, strings.Join(weirKinds(), ", "), weirAPIVersion))
	case kind == kindService && group != "" && nearest(group, []string{knative}) != "":
		p.fail(src.line("apiVersion"), object, "apiVersion", fmt.Sprintf("%q is not Knative's; for a Knative Service write %s", apiVersion, knativeAPIVersion))
	default:
		return false
	}
	p.objs.incomplete = true
	return true
}

// decode appends what can be read of m to into, and reports the rest.
func decode[T any](p *parser, m map[string]any, src Origin, object string, into *[]Resource[T]) {
	clean, problems := strictly(m, reflect.TypeFor[T]())
	src.broken = make(map[string]bool, len(problems))
	for _, pr := range problems {
		src.broken[pr.path] = true
		p.fail(src.line(pr.path), object, pr.path, pr.msg)
	}
	obj := new(T)
	raw, err := json.Marshal(clean)
	if err == nil {
		err = k8sjson.UnmarshalCaseSensitivePreserveInts(raw, obj)
	}
	if err != nil {
		p.objs.incomplete = true
		p.fail(src.line(""), object, "", "cannot be read: "+err.Error())
		return
	}
	*into = append(*into, Resource[T]{Object: obj, Origin: src})
}

func text(m map[string]any, key string) (string, bool) {
	s, ok := m[key].(string)
	return s, ok && s != ""
}
