// Command fields writes the tables of docs/resources.md: every field of Weir's resources, as the custom resource
// definitions have them. What stands before the marker in the page is written by hand and kept.
//
//	go run ./hack/fields [-page FILE]      hack/update-codegen.sh does it
package main

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/yaml"
)

// marker begins what is generated.
const marker = "<!-- What follows is written by hack/update-codegen.sh. -->\n"

func main() {
	page := flag.String("page", filepath.Join("docs", "resources.md"), "the page to write")
	crds := flag.String("crds", filepath.Join("charts", "weir", "files", "crds"), "folder of the definitions")
	flag.Parse()
	if err := run(*page, *crds); err != nil {
		fmt.Fprintf(os.Stderr, "fields: %v\n", err)
		os.Exit(1)
	}
}

func run(page, crds string) error {
	old, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	head, _, ok := bytes.Cut(old, []byte(marker))
	if !ok {
		return fmt.Errorf("%s has no line %q", page, strings.TrimSpace(marker))
	}
	files, err := filepath.Glob(filepath.Join(crds, "*.yaml"))
	if err != nil {
		return err
	}
	if len(files) == 0 {
		return fmt.Errorf("no definitions in %s", crds)
	}
	out := bytes.NewBuffer(append(head, marker...))
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		var crd apiextensions.CustomResourceDefinition
		if err := yaml.UnmarshalStrict(text, &crd); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		root := crd.Spec.Versions[0].Schema.OpenAPIV3Schema
		fmt.Fprintf(out, "\n## %s\n\n%s\n\n| Field of `spec` | Type | Default | |\n|---|---|---|---|\n", crd.Spec.Names.Kind, sentence(root.Description))
		spec := root.Properties["spec"]
		rows(out, "", &spec)
	}
	return os.WriteFile(page, out.Bytes(), 0o644)
}

// rows writes a row for each field below s, whose path is prefix.
func rows(out *bytes.Buffer, prefix string, s *apiextensions.JSONSchemaProps) {
	for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
		f := s.Properties[name]
		path, value := prefix+name, ""
		if slices.Contains(s.Required, name) {
			value = "required"
		}
		if f.Default != nil && string(f.Default.Raw) != "{}" {
			value = "`" + strings.Trim(string(f.Default.Raw), `"`) + "`"
		}
		fmt.Fprintf(out, "| `%s` | %s | %s | %s |\n", path, kind(&f), value, meaning(&f))
		switch {
		case f.Type == "array" && f.Items != nil && f.Items.Schema != nil:
			rows(out, path+"[].", f.Items.Schema)
		case f.Type == "object":
			rows(out, path+".", &f)
		}
	}
}

// kind is a field's type in a user's words.
func kind(f *apiextensions.JSONSchemaProps) string {
	switch {
	case f.XIntOrString:
		return "quantity" // of Kubernetes: 64Mi
	case len(f.Enum) > 0:
		var values []string
		for _, v := range f.Enum {
			values = append(values, "`"+strings.Trim(string(v.Raw), `"`)+"`")
		}
		return strings.Join(values, ", ")
	case f.Type == "string" && strings.Contains(f.Pattern, "(ns|us"):
		return "duration" // of Go: 90s
	case f.Type == "array" && f.Items != nil && f.Items.Schema != nil && f.Items.Schema.Type != "object":
		return "list of " + f.Items.Schema.Type
	case f.Type == "array":
		return "list"
	case f.Type == "object" && f.AdditionalProperties != nil && f.AdditionalProperties.Schema != nil:
		return "map of name to " + f.AdditionalProperties.Schema.Type
	case f.Type == "":
		return "any"
	}
	return f.Type
}

// meaning is what the definition says of a field, with its bounds.
func meaning(f *apiextensions.JSONSchemaProps) string {
	text := []string{sentence(f.Description)}
	if f.Minimum != nil && f.Maximum != nil {
		text = append(text, fmt.Sprintf("Between %v and %v.", *f.Minimum, *f.Maximum))
	} else if f.Minimum != nil {
		text = append(text, fmt.Sprintf("At least %v.", *f.Minimum))
	}
	for _, v := range f.XValidations {
		text = append(text, sentence(strings.ToUpper(v.Message[:1])+v.Message[1:]))
	}
	return strings.ReplaceAll(strings.TrimSpace(strings.Join(text, " ")), "|", `\|`)
}

// sentence is text on one line, with a full stop.
func sentence(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	if text != "" && !strings.HasSuffix(text, ".") {
		text += "."
	}
	return text
}
