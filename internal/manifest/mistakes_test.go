package manifest

import (
	"strings"
	"testing"
)

// TestMistakes breaks the good file in one place a case, and holds the message word by word: file, line,
// field and the fix are what users see of this package.
func TestMistakes(t *testing.T) {
	tests := []struct {
		name     string
		old, new string // what is replaced in good
		want     string // every error, exactly
	}{
		{
			"unknown field",
			"    queue: {name: orders}",
			"    queue: {name: orders}\n    throtle: {rate: 1, burst: 1}",
			`a.yaml:11: API shop: spec.routes[0].throtle: unknown field; did you mean "throttle"?`,
		},
		{
			"unknown field of a small object",
			"queue: {name: orders}",
			"queue: {name: orders, tint: red}",
			`a.yaml:10: API shop: spec.routes[0].queue.tint: unknown field; known here: name`,
		},
		{
			"a property of YAML 1.1's truth",
			"schema: {type: object}",
			"schema: {properties: {y: {type: integer}, \"n\": {}}, required: [sku, \"yes\"]}",
			`a.yaml:9: API shop: spec.routes[0].schema.properties.y: y without quotes is true or false, as kubectl reads it too: write "y"`,
		},
		{
			"a value of YAML 1.1's truth",
			"schema: {type: object}",
			"schema:\n      enum:\n      - maybe\n      - Off",
			`a.yaml:12: API shop: spec.routes[0].schema.enum[1]: Off without quotes is true or false, as kubectl reads it too: write "Off"`,
		},
		{
			"a route that nests too deeply",
			"    queue: {name: orders}",
			"    maxDepth: 1001\n    queue: {name: orders}",
			`a.yaml:10: API shop: spec.routes[0].maxDepth: Invalid value: 1001: must be between 1 and 1000`,
		},
		{
			"a media type with parameters",
			"    queue: {name: orders}",
			"    contentTypes: [application/json, \"application/*+json; charset=utf-8\"]\n    queue: {name: orders}",
			`a.yaml:10: API shop: spec.routes[0].contentTypes[1]: Invalid value: "application/*+json; charset=utf-8": must have no parameters: they make no difference; write such as text/plain`,
		},
		{
			"no media type",
			"    queue: {name: orders}",
			"    contentTypes: []\n    queue: {name: orders}",
			`a.yaml:10: API shop: spec.routes[0].contentTypes: Required value: name a media type such as application/json, or leave contentTypes out to take all`,
		},
		{
			"a media type twice",
			"    queue: {name: orders}",
			"    contentTypes: [application/json, Application/JSON]\n    queue: {name: orders}",
			`a.yaml:10: API shop: spec.routes[0].contentTypes[1]: Duplicate value: "Application/JSON"`,
		},
		{
			"a media type that the schema refuses",
			"    queue: {name: orders}",
			"    contentTypes: [application/json, image/png]\n    queue: {name: orders}",
			`a.yaml:10: API shop: spec.routes[0].contentTypes[1]: Invalid value: "image/png": no body of it is JSON, which the route's schema asks for: remove it, or the schema`,
		},
		{
			"an origin with a path",
			"  routes:",
			"  cors: {origins: [\"https://shop.example/\"]}\n  routes:",
			`a.yaml:6: API shop: spec.cors.origins[0]: Invalid value: "https://shop.example/": must be a scheme, a host and maybe a port, such as https://shop.example or https://*.shop.example:8443, or *`,
		},
		{
			"credentials for all",
			"  routes:",
			"  cors: {origins: [\"*\"], credentials: true}\n  routes:",
			`a.yaml:6: API shop: spec.cors.credentials: Forbidden: with credentials the origins must be named: remove *, or credentials`,
		},
		{
			"no origin",
			"  routes:",
			"  cors: {origins: []}\n  routes:",
			`a.yaml:6: API shop: spec.cors.origins: Required value: name the pages' origins, such as https://shop.example, or *`,
		},
		{
			"a header with a space",
			"  routes:",
			"  cors: {origins: [\"https://*.shop.example\"], headers: [\"X Y\"]}\n  routes:",
			`a.yaml:6: API shop: spec.cors.headers[0]: Invalid value: "X Y": must be the name of a header, such as Authorization`,
		},
		{
			"attribute that names nothing",
			"    queue: {name: orders}",
			"    attributes: {customer: body.sku}\n    queue: {name: orders}",
			`a.yaml:10: API shop: spec.routes[0].attributes[customer]: Invalid value: "body.sku": must be path.NAME, query.NAME, header.NAME or body:/json/pointer`,
		},
		{
			"attribute of a wildcard that the path has not",
			"    queue: {name: orders}",
			"    attributes: {customer: path.id}\n    queue: {name: orders}",
			`a.yaml:10: API shop: spec.routes[0].attributes[customer]: Invalid value: "path.id": the route's path /orders has no wildcard {id}: it has no wildcard`,
		},
		{
			"attribute with a name of CloudEvents'",
			"    queue: {name: orders}",
			"    attributes: {source: query.s}\n    queue: {name: orders}",
			`a.yaml:10: API shop: spec.routes[0].attributes[source]: Invalid value: "source": is an attribute that events have already, or begins with "weir": choose another name`,
		},
		{
			"attribute with a name of Weir's",
			"    queue: {name: orders}",
			"    attributes: {weirx: query.s}\n    queue: {name: orders}",
			`a.yaml:10: API shop: spec.routes[0].attributes[weirx]: Invalid value: "weirx": is an attribute that events have already, or begins with "weir": choose another name`,
		},
		{
			"attribute with a capital",
			"    queue: {name: orders}",
			"    attributes: {myId: query.s}\n    queue: {name: orders}",
			`a.yaml:10: API shop: spec.routes[0].attributes[myId]: Invalid value: "myId": must have 1 to 20 lower-case letters and digits, as CloudEvents asks`,
		},
		{
			"required attribute that isn't named",
			"    queue: {name: orders}",
			"    attributes: {customer: query.c}\n    required: [tenant]\n    queue: {name: orders}",
			`a.yaml:11: API shop: spec.routes[0].required[0]: Not found: "tenant"`,
		},
		{
			"ordering key of a route",
			"queue: {name: orders}",
			"queue: {name: orders, orderingKey: /customer}",
			`a.yaml:10: API shop: spec.routes[0].queue.orderingKey: unknown field; known here: name`,
		},
		{
			"unknown field of a Knative Service",
			"      timeoutSeconds: 30",
			"      timeoutSecond: 30",
			`a.yaml:37: Service writer: spec.template.spec.timeoutSecond: unknown field; did you mean "timeoutSeconds"?`,
		},
		{
			"duplicate key",
			"kind: Queue",
			"kind: Queue\nkind: Queue",
			`a.yaml:17: key "kind" is given twice: remove one`,
		},
		{
			"list instead of mapping",
			"    match: {method: POST, path: /orders}",
			"    match: [POST, /orders]",
			`a.yaml:8: API shop: spec.routes[0].match: must be a mapping (field: value), not a list`,
		},
		{
			"number instead of text",
			"metadata: {name: shop}",
			"metadata: {name: 5}",
			`a.yaml:3: API: metadata.name: must be text: put it in quotes, not 5`,
		},
		{
			"duration without unit",
			"  timeout: 30s",
			"  timeout: 30",
			`a.yaml:26: EventSourceMapping orders: spec.timeout: must be a duration with its unit, such as "500ms", "30s" or "5m", not 30`,
		},
		{
			"duration with a wrong unit",
			"  timeout: 30s",
			"  timeout: 30 sec",
			`a.yaml:26: EventSourceMapping orders: spec.timeout: must be a duration with its unit, such as "500ms", "30s" or "5m", not "30 sec"; write "30s"`,
		},
		{
			"duration in days",
			"spec: {maxAge: 24h}",
			"spec: {maxAge: 4d}",
			`a.yaml:18: Queue orders: spec.maxAge: must be a duration with its unit, such as "500ms", "30s" or "5m", not "4d"; write "96h"`,
		},
		{
			"quantity with a wrong suffix",
			"spec: {maxAge: 24h}",
			"spec: {maxBytes: 10GB}",
			`a.yaml:18: Queue orders: spec.maxBytes: must be a number, if you like with a suffix: 262144, "256Ki", "4Mi", not "10GB"`,
		},
		{
			"text instead of number",
			"burst: 50",
			"burst: many",
			`a.yaml:5: API shop: spec.throttle.burst: must be a whole number, not "many"`,
		},
		{
			"fraction instead of whole number",
			"burst: 50",
			"burst: 1.5",
			`a.yaml:5: API shop: spec.throttle.burst: must be a whole number, not 1.5`,
		},
		{
			"missing kind",
			"kind: Queue\n",
			"",
			`a.yaml:15: kind: is missing: every resource says apiVersion and kind, such as apiVersion: weir.dev/v1alpha1, kind: API`,
		},
		{
			"missing apiVersion and kind",
			"apiVersion: weir.dev/v1alpha1\nkind: Queue\n",
			"",
			`a.yaml:15: apiVersion: is missing: every resource says apiVersion and kind, such as apiVersion: weir.dev/v1alpha1, kind: API
a.yaml:15: kind: is missing: every resource says apiVersion and kind, such as apiVersion: weir.dev/v1alpha1, kind: API`,
		},
		{
			"not a mapping",
			"apiVersion: weir.dev/v1alpha1\nkind: Queue\nmetadata: {name: orders}\nspec: {maxAge: 24h}\n",
			"just text\n",
			`a.yaml:15: must be a resource with apiVersion, kind, metadata and spec, not "just text"`,
		},
		{
			"not YAML",
			"metadata: {name: orders}\nspec: {maxAge: 24h}",
			"metadata: {name: orders\nspec: {maxAge: 24h}",
			`a.yaml:17: is not valid YAML: did not find expected ',' or '}'`,
		},
		{
			"unknown kind",
			"kind: Queue",
			"kind: Queu",
			`a.yaml:16: Queu orders: kind: unknown kind "Queu" in weir.dev/v1alpha1; there are API, Queue, EventSourceMapping, StateMachine; did you mean "Queue"?`,
		},
		{
			"kind of a later version",
			"kind: Queue",
			"kind: Topic",
			`a.yaml:16: Topic orders: kind: unknown kind "Topic" in weir.dev/v1alpha1; there are API, Queue, EventSourceMapping, StateMachine`,
		},
		{
			"unknown version",
			"apiVersion: weir.dev/v1alpha1\nkind: Queue",
			"apiVersion: weir.dev/v1\nkind: Queue",
			`a.yaml:15: Queue orders: apiVersion: unknown version "weir.dev/v1"; write weir.dev/v1alpha1`,
		},
		{
			"misspelled group",
			"apiVersion: weir.dev/v1alpha1\nkind: Queue",
			"apiVersion: wier.dev/v1alpha1\nkind: Queue",
			`a.yaml:15: Queue orders: apiVersion: "wier.dev/v1alpha1" is not Weir's; for Weir's API, Queue, EventSourceMapping, StateMachine write weir.dev/v1alpha1`,
		},
		{
			"old Knative version",
			"apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {name: writer}",
			"apiVersion: serving.knative.dev/v1alpha1\nkind: Service\nmetadata: {name: writer}",
			`a.yaml:28: Service writer: apiVersion: unknown version "serving.knative.dev/v1alpha1"; write serving.knative.dev/v1`,
		},
		{
			"list without items",
			"apiVersion: weir.dev/v1alpha1\nkind: Queue\n",
			"apiVersion: v1\nkind: List\n",
			`a.yaml:15: List: items: must be a list (- item) of resources, not nothing`,
		},
		{
			"list of one item, without a dash",
			"apiVersion: weir.dev/v1alpha1\nkind: Queue\n",
			"apiVersion: v1\nkind: List\nitems: {apiVersion: weir.dev/v1alpha1, kind: Queue}\n",
			`a.yaml:17: List: items: must be a list (- item) of resources, not a mapping`,
		},
		{
			"missing name",
			"metadata: {name: shop}",
			"metadata: {}",
			`a.yaml:3: API: metadata.name: Required value: give it a name of lower-case letters, digits and '-'`,
		},
		{
			"name with a dot",
			"metadata: {name: shop}",
			"metadata: {name: my.shop}",
			`a.yaml:3: API my.shop: metadata.name: Invalid value: "my.shop": must be a DNS-1123 label: at most 63 lower-case letters, digits and '-', no dots, a letter or digit first and last`,
		},
		{
			"namespace with a dot",
			"metadata: {name: shop}",
			"metadata: {name: shop, namespace: a.b}",
			`a.yaml:3: API shop: metadata.namespace: Invalid value: "a.b": must be a DNS-1123 label: at most 63 lower-case letters, digits and '-', no dots, a letter or digit first and last
a.yaml:10: API shop: spec.routes[0].queue.name: there is no Queue "orders" in namespace a.b; add it, or name another
a.yaml:13: API shop: spec.routes[1].function.name: there is no Knative Service "reader" in namespace a.b; add it, or name another`,
		},
		{
			"no routes",
			"  routes:\n  - name: create\n    match: {method: POST, path: /orders}\n    schema: {type: object}\n    queue: {name: orders}\n  - name: get\n    match: {method: GET, path: \"/orders/{id}\"}\n    function: {name: reader, timeout: 20s}\n",
			"  routes: []\n",
			`a.yaml:6: API shop: spec.routes: Required value: add at least one route`,
		},
		{
			"rate of zero",
			"rate: 100",
			"rate: 0",
			`a.yaml:5: API shop: spec.throttle.rate: Invalid value: "0": must be greater than 0 requests a second; remove throttle for no limit`,
		},
		{
			"rate beyond reason",
			"rate: 100",
			"rate: 1e30",
			`a.yaml:5: API shop: spec.throttle.rate: Invalid value: "1e+30": must be at most 10000000 requests a second; remove throttle for no limit`,
		},
		{
			"burst of zero",
			"burst: 50",
			"burst: 0",
			`a.yaml:5: API shop: spec.throttle.burst: Invalid value: 0: must be at least 1: a bucket of none lets nothing through`,
		},
		{
			"route name twice",
			"  - name: get",
			"  - name: create",
			`a.yaml:11: API shop: spec.routes[1].name: Duplicate value: "create"`,
		},
		{
			"unknown method",
			"method: GET",
			"method: FETCH",
			`a.yaml:12: API shop: spec.routes[1].match.method: Unsupported value: "FETCH": supported values: "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"`,
		},
		{
			"method in small letters",
			"method: GET",
			"method: get",
			`a.yaml:12: API shop: spec.routes[1].match.method: Unsupported value: "get": supported values: "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"`,
		},
		{
			"relative path",
			"path: /orders}",
			"path: orders}",
			`a.yaml:8: API shop: spec.routes[0].match.path: Invalid value: "orders": must start with '/' (no method, no host), such as /orders/{id}`,
		},
		{
			"path with a host",
			"path: /orders}",
			"path: example.com/orders}",
			`a.yaml:8: API shop: spec.routes[0].match.path: Invalid value: "example.com/orders": must start with '/' (no method, no host), such as /orders/{id}`,
		},
		{
			"path with a query",
			"path: /orders}",
			"path: \"/orders?a=b\"}",
			`a.yaml:8: API shop: spec.routes[0].match.path: Invalid value: "/orders?a=b": must be a path alone: no spaces, query or fragment`,
		},
		{
			"path pattern",
			"/orders/{id}",
			"/orders/{id",
			`a.yaml:12: API shop: spec.routes[1].match.path: Invalid value: "/orders/{id": must be a net/http.ServeMux pattern such as /orders/{id}: bad wildcard segment (must end with '}')`,
		},
		{
			"unclean path",
			"path: /orders}",
			"path: /a//b}",
			`a.yaml:8: API shop: spec.routes[0].match.path: Invalid value: "/a//b": must be a net/http.ServeMux pattern such as /orders/{id}: non-CONNECT pattern with unclean path can never match`,
		},
		{
			"reserved path",
			"path: /orders}",
			"path: /weir/x}",
			`a.yaml:8: API shop: spec.routes[0].match.path: Invalid value: "/weir/x": is Weir's own, as all below /weir/; choose another path`,
		},
		{
			"no target",
			"    queue: {name: orders}\n",
			"",
			`a.yaml:7: API shop: spec.routes[0]: Required value: say where the requests go: queue, job or function`,
		},
		{
			"two targets",
			"    queue: {name: orders}",
			"    queue: {name: orders}\n    function: {name: reader, timeout: 1s}",
			`a.yaml:11: API shop: spec.routes[0].function: Forbidden: queue is set too: keep one of queue, job and function`,
		},
		{
			"buffered GET",
			"method: POST",
			"method: GET",
			`a.yaml:8: API shop: spec.routes[0].match.method: Unsupported value: "GET": supported values: "POST", "PUT", "PATCH", "DELETE"
a.yaml:9: API shop: spec.routes[0].schema: Forbidden: a GET request has no body to check: remove the schema, or use POST, PUT, PATCH, DELETE`,
		},
		{
			"schema without a body",
			"    function: {name: reader, timeout: 20s}",
			"    function: {name: reader, timeout: 20s}\n    schema: {type: object}",
			`a.yaml:14: API shop: spec.routes[1].schema: Forbidden: a GET request has no body to check: remove the schema, or use POST, PUT, PATCH, DELETE`,
		},
		{
			"media types without a body",
			"    function: {name: reader, timeout: 20s}",
			"    function: {name: reader, timeout: 20s}\n    contentTypes: [text/csv]",
			`a.yaml:14: API shop: spec.routes[1].contentTypes: Forbidden: a GET request has no body: remove contentTypes, or use POST, PUT, PATCH, DELETE`,
		},
		{
			"schema that is none",
			"schema: {type: object}",
			"schema: {type: objekt}",
			`a.yaml:9: API shop: spec.routes[0].schema: Invalid value: must be a valid JSON Schema: "#" is not valid against metaschema: jsonschema validation failed with 'https://json-schema.org/draft/2020-12/schema#' - at '': 'allOf' failed - at '/type': 'anyOf' failed - at '/type': value must be one of 'array', 'boolean', 'integer', 'null', 'number', 'object', 'string' - at '/type': got string, want array`,
		},
		{
			"schema that is no object",
			"schema: {type: object}",
			"schema: [object]",
			`a.yaml:9: API shop: spec.routes[0].schema: Invalid value: must be a JSON Schema object, such as {type: object}`,
		},
		{
			"schema elsewhere",
			"schema: {type: object}",
			"schema: {$ref: \"https://example.com/s.json\"}",
			`a.yaml:9: API shop: spec.routes[0].schema: Invalid value: must be a valid JSON Schema: failing loading "https://example.com/s.json": schemas of other places are not loaded: put the schema under $defs and refer to it as #/$defs/NAME`,
		},
		{
			"schema in a file",
			"schema: {type: object}",
			"schema: {$ref: other.json}",
			`a.yaml:9: API shop: spec.routes[0].schema: Invalid value: must be a valid JSON Schema: failing loading "other.json": schemas of other places are not loaded: put the schema under $defs and refer to it as #/$defs/NAME`,
		},
		{
			"schema with a bad pattern",
			"schema: {type: object}",
			"schema: {pattern: \"(\"}",
			"a.yaml:9: API shop: spec.routes[0].schema: Invalid value: must be a valid JSON Schema: \"#\" is not valid against metaschema: jsonschema validation failed with 'https://json-schema.org/draft/2020-12/schema#' - at '': 'allOf' failed - at '/pattern': '(' is not valid regex: error parsing regexp: missing closing ): `(`",
		},
		{
			"large body, buffered",
			"    queue: {name: orders}",
			"    queue: {name: orders}\n    maxBodyBytes: 1Mi",
			`a.yaml:11: API shop: spec.routes[0].maxBodyBytes: Invalid value: "1Mi": must be a whole number of bytes between 1 and 768Ki: a message of the queue's stream holds at most 1Mi; send larger bodies to a function`,
		},
		{
			"large body, function",
			"    function: {name: reader, timeout: 20s}",
			"    function: {name: reader, timeout: 20s}\n    maxBodyBytes: 11Mi",
			`a.yaml:14: API shop: spec.routes[1].maxBodyBytes: Invalid value: "11Mi": must be a whole number of bytes between 1 and 10Mi`,
		},
		{
			"body of half a byte",
			"    queue: {name: orders}",
			"    queue: {name: orders}\n    maxBodyBytes: 500m",
			`a.yaml:11: API shop: spec.routes[0].maxBodyBytes: Invalid value: "500m": must be a whole number of bytes between 1 and 768Ki: a message of the queue's stream holds at most 1Mi; send larger bodies to a function`,
		},
		{
			"function by name and url",
			"{name: reader, timeout: 20s}",
			"{name: reader, url: \"http://x\"}",
			`a.yaml:13: API shop: spec.routes[1].function.url: Invalid value: "http://x": name is set too: keep one of name and url`,
		},
		{
			"function by neither",
			"{name: reader, timeout: 20s}",
			"{timeout: 20s}",
			`a.yaml:13: API shop: spec.routes[1].function: Required value: say name (a Knative Service of this namespace) or url`,
		},
		{
			"function by a bad url",
			"{name: reader, timeout: 20s}",
			"{url: \"ftp://x\"}",
			`a.yaml:13: API shop: spec.routes[1].function.url: Invalid value: "ftp://x": must be an absolute http or https URL without user and fragment, such as http://billing.internal:8080/orders`,
		},
		{
			"function at a metadata service",
			"{name: reader, timeout: 20s}",
			"{url: \"http://169.254.169.254/latest\"}",
			`a.yaml:13: API shop: spec.routes[1].function.url: Invalid value: "http://169.254.169.254/latest": is a cloud's metadata service, which hands out the credentials of the machine: it is no function`,
		},
		{
			"protocol of a Service",
			"{name: reader, timeout: 20s}",
			"{name: reader, protocol: h2c}",
			`a.yaml:13: API shop: spec.routes[1].function.protocol: Forbidden: it is of a function given by url: remove it, and name the port of the Service's container h2c instead`,
		},
		{
			"unknown protocol",
			"{name: reader, timeout: 20s}",
			"{url: \"http://x\", protocol: h2}",
			`a.yaml:13: API shop: spec.routes[1].function.protocol: Unsupported value: "h2": supported values: "http1", "h2c"`,
		},
		{
			"h2c by TLS",
			"{name: reader, timeout: 20s}",
			"{url: \"https://x\", protocol: h2c}",
			`a.yaml:13: API shop: spec.routes[1].function.protocol: Invalid value: "h2c": h2c is HTTP/2 without TLS: it needs an http url; give one, or remove protocol`,
		},
		{
			"h2c of a mapping by TLS",
			"{name: writer}",
			"{url: \"https://x\", protocol: h2c}\n  maxConcurrency: 2",
			`a.yaml:25: EventSourceMapping orders: spec.function.protocol: Invalid value: "h2c": h2c is HTTP/2 without TLS: it needs an http url; give one, or remove protocol`,
		},
		{
			"timeout of zero",
			"timeout: 20s",
			"timeout: 0s",
			`a.yaml:13: API shop: spec.routes[1].function.timeout: Invalid value: "0s": must be between 100ms and 15m`,
		},
		{
			"ordered queue",
			"spec: {maxAge: 24h}",
			"spec: {ordering: key}",
			`a.yaml:18: Queue orders: spec.ordering: Invalid value: "key": ordered queues are not supported yet; use ordering: none`,
		},
		{
			"unknown ordering",
			"spec: {maxAge: 24h}",
			"spec: {ordering: fifo}",
			`a.yaml:18: Queue orders: spec.ordering: Unsupported value: "fifo": supported values: "none"`,
		},
		{
			"short maxAge",
			"spec: {maxAge: 24h}",
			"spec: {maxAge: 10s}",
			`a.yaml:18: Queue orders: spec.maxAge: Invalid value: "10s": must be between 1m and 8760h`,
		},
		{
			"small queue",
			"spec: {maxAge: 24h}",
			"spec: {maxBytes: 1Ki}",
			`a.yaml:18: Queue orders: spec.maxBytes: Invalid value: "1Ki": must be a whole number of bytes between 8Mi and 64Ti`,
		},
		{
			"negative dead-letter age",
			"spec: {maxAge: 24h}",
			"spec: {deadLetter: {maxAge: -1h}}",
			`a.yaml:18: Queue orders: spec.deadLetter.maxAge: Invalid value: "-1h0m0s": must be between 1m and 8760h`,
		},
		{
			"batch of zero",
			"  timeout: 30s",
			"  timeout: 30s\n  batch: {maxRecords: 0, maxBytes: 0, window: 1h}",
			`a.yaml:27: EventSourceMapping orders: spec.batch.maxBytes: Invalid value: "0": must be a whole number of bytes between 1Ki and 32Mi
a.yaml:27: EventSourceMapping orders: spec.batch.maxRecords: Invalid value: 0: must be between 1 and 10000
a.yaml:27: EventSourceMapping orders: spec.batch.window: Invalid value: "1h0m0s": must be between 0s and 5m`,
		},
		{
			"retry bounds",
			"  timeout: 30s",
			"  timeout: 30s\n  retry: {maxAttempts: 0, initialBackoff: 0s}",
			`a.yaml:27: EventSourceMapping orders: spec.retry.initialBackoff: Invalid value: "0s": must be between 1ms and 24h
a.yaml:27: EventSourceMapping orders: spec.retry.maxAttempts: Invalid value: 0: must be between 1 and 1000`,
		},
		{
			"backoff upside down",
			"  timeout: 30s",
			"  timeout: 30s\n  retry: {initialBackoff: 10m}",
			`a.yaml:27: EventSourceMapping orders: spec.retry.maxBackoff: Invalid value: "5m0s": must not be below initialBackoff, which is 10m`,
		},
		{
			"no such queue of a route",
			"    queue: {name: orders}",
			"    queue: {name: oders}",
			`a.yaml:10: API shop: spec.routes[0].queue.name: there is no Queue "oders" in namespace default; did you mean "orders"?`,
		},
		{
			"no such queue of a mapping",
			"  queue: orders\n",
			"  queue: deliveries\n",
			`a.yaml:24: EventSourceMapping orders: spec.queue: there is no Queue "deliveries" in namespace default; add it, or name another`,
		},
		{
			"no such function of a route",
			"{name: reader, timeout: 20s}",
			"{name: raeder, timeout: 20s}",
			`a.yaml:13: API shop: spec.routes[1].function.name: there is no Knative Service "raeder" in namespace default; did you mean "reader"?`,
		},
		{
			"no such function of a mapping",
			"{name: writer}\n  timeout",
			"{name: accounting}\n  timeout",
			`a.yaml:25: EventSourceMapping orders: spec.function.name: there is no Knative Service "accounting" in namespace default; add it, or name another`,
		},
		{
			"reference across namespaces",
			"kind: Queue\nmetadata: {name: orders}",
			"kind: Queue\nmetadata: {name: orders, namespace: other}",
			`a.yaml:10: API shop: spec.routes[0].queue.name: there is no Queue "orders" in namespace default; add it, or name another
a.yaml:24: EventSourceMapping orders: spec.queue: there is no Queue "orders" in namespace default; add it, or name another`,
		},
		{
			"defined twice",
			"apiVersion: weir.dev/v1alpha1\nkind: Queue",
			"apiVersion: weir.dev/v1alpha1\nkind: Queue\nmetadata: {name: orders}\n---\napiVersion: weir.dev/v1alpha1\nkind: Queue",
			`a.yaml:21: Queue orders: metadata.name: is the name of another Queue too (a.yaml:17): rename one or remove it`,
		},
		{
			"service defined twice",
			"metadata: {name: reader}",
			"metadata: {name: writer}",
			`a.yaml:13: API shop: spec.routes[1].function.name: there is no Knative Service "reader" in namespace default; add it, or name another
a.yaml:43: Service writer: metadata.name: is the name of another Service too (a.yaml:30): rename one or remove it`,
		},
		{
			"route timeout beyond the Service's default",
			"timeout: 20s",
			"timeout: 6m",
			`a.yaml:13: API shop: spec.routes[1].function.timeout: 6m is longer than timeoutSeconds of Service reader (a.yaml:46), 5m: Knative would end the call first; set it to at most 5m, or raise timeoutSeconds`,
		},
		{
			"mapping timeout beyond the Service's",
			"  timeout: 30s",
			"  timeout: 31s",
			`a.yaml:26: EventSourceMapping orders: spec.timeout: 31s is longer than timeoutSeconds of Service writer (a.yaml:37), 30s: Knative would end the call first; set it to at most 30s, or raise timeoutSeconds`,
		},
		{
			"timeout beyond responseStartTimeoutSeconds",
			"      timeoutSeconds: 30",
			"      timeoutSeconds: 30\n      responseStartTimeoutSeconds: 10",
			`a.yaml:26: EventSourceMapping orders: spec.timeout: 30s is longer than responseStartTimeoutSeconds of Service writer (a.yaml:38), 10s: Knative would end the call first; set it to at most 10s, or raise responseStartTimeoutSeconds`,
		},
		{
			"same method and path",
			"{method: GET, path: \"/orders/{id}\"}",
			"{method: POST, path: /orders}",
			`a.yaml:12: API shop: spec.routes[1].match: POST /orders has the method and path of route create of API shop (a.yaml:7); change the method, the host or the path of one`,
		},
		{
			"overlapping paths",
			"  - name: get\n",
			"  - name: overlap\n    match: {method: GET, path: \"/{kind}/7\"}\n    function: {name: reader}\n  - name: get\n",
			`a.yaml:15: API shop: spec.routes[2].match: GET /orders/{id} collides with route overlap of API shop (a.yaml:11): GET /orders/{id} and GET /{kind}/7 both match some paths, like "/orders/7". But neither is more specific than the other. GET /orders/{id} matches "/orders/id", but GET /{kind}/7 doesn't. GET /{kind}/7 matches "/kind/7", but GET /orders/{id} doesn't; change the method, the host or the path of one`,
		},
		{
			"no concurrency for a url",
			"{name: writer}\n  timeout",
			"{url: \"http://localhost:9000/\"}\n  timeout",
			`a.yaml:23: EventSourceMapping orders: spec.maxConcurrency: is missing: a function given by url has no Service to take the cap from; say how many calls may run at once, such as maxConcurrency: 10`,
		},
		{
			"no containerConcurrency",
			"      containerConcurrency: 2\n",
			"",
			`a.yaml:23: EventSourceMapping orders: spec.maxConcurrency: is missing, and Service writer (a.yaml:35) has no containerConcurrency to take it from: set one of them`,
		},
		{
			"no max-scale",
			"{autoscaling.knative.dev/max-scale: \"5\"}",
			"{}",
			`a.yaml:23: EventSourceMapping orders: spec.maxConcurrency: is missing, and Service writer (a.yaml:32) has no annotation autoscaling.knative.dev/max-scale to take it from: set one of them`,
		},
		{
			"max-scale of zero",
			"max-scale: \"5\"",
			"max-scale: \"0\"",
			`a.yaml:23: EventSourceMapping orders: spec.maxConcurrency: is missing, and Service writer (a.yaml:32) has no annotation autoscaling.knative.dev/max-scale to take it from: set one of them`,
		},
		{
			"concurrency beyond the Service's",
			"  timeout: 30s",
			"  timeout: 30s\n  maxConcurrency: 11",
			`a.yaml:27: EventSourceMapping orders: spec.maxConcurrency: 11 calls are more than Service writer (a.yaml:33) takes at once, containerConcurrency 2 × max-scale 5 = 10: set it to at most 10, leave it out, or raise max-scale`,
		},
		{
			"concurrency of zero",
			"  timeout: 30s",
			"  timeout: 30s\n  maxConcurrency: 0",
			`a.yaml:27: EventSourceMapping orders: spec.maxConcurrency: Invalid value: 0: must be between 1 and 2147483647`,
		},
		{
			"two mappings on a queue",
			"---\napiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {name: writer}",
			"---\napiVersion: weir.dev/v1alpha1\nkind: EventSourceMapping\nmetadata: {name: again}\nspec: {queue: orders, function: {name: writer}, timeout: 5s}\n---\napiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {name: writer}",
			`a.yaml:31: EventSourceMapping again: spec.queue: queue orders is already drained by EventSourceMapping orders (a.yaml:24): one mapping drains a queue; remove one, or give it a queue of its own`,
		},
		{
			"Knative: no image",
			"      - image: example.com/writer",
			"      - name: x",
			`a.yaml:39: Service writer: spec.template.spec.containers[0].image: Knative refuses it: missing field(s)`,
		},
		{
			"Knative: max-scale is no number",
			"max-scale: \"5\"",
			"max-scale: five",
			`a.yaml:34: Service writer: spec.template.metadata.annotations.autoscaling.knative.dev/max-scale: Knative refuses it: invalid value: five`,
		},
		{
			"Knative: annotation in the wrong place",
			"metadata: {name: writer}",
			"metadata: {name: writer, annotations: {autoscaling.knative.dev/max-scale: \"1\"}}",
			`a.yaml:30: Service writer: metadata.annotations: Knative refuses it: invalid key name "autoscaling.knative.dev/max-scale": autoscaling annotations must be put under "spec.template.metadata.annotations" to work`,
		},
		{
			"Knative: timeout too long",
			"timeoutSeconds: 30",
			"timeoutSeconds: 3600",
			`a.yaml:37: Service writer: spec.template.spec.timeoutSeconds: Knative refuses it: expected 0 <= 3600 <= 600`,
		},
		{
			"Knative: bad name",
			"metadata: {name: reader}",
			"metadata: {name: reader.x}",
			`a.yaml:13: API shop: spec.routes[1].function.name: there is no Knative Service "reader" in namespace default; did you mean "reader.x"?
a.yaml:43: Service reader.x: metadata.name: Knative refuses it: not a DNS 1035 label: [a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')]`,
		},
		{
			"Knative: host path",
			"      - image: example.com/writer",
			"      - image: example.com/writer\n      hostNetwork: true",
			`a.yaml:40: Service writer: spec.template.spec.hostNetwork: Knative refuses it: must not set the field(s)`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			broken := strings.Replace(good, tt.old, tt.new, 1)
			if broken == good {
				t.Fatalf("%q is not in the good file", tt.old)
			}
			_, err := load(map[string]string{"a.yaml": broken}, Options{})
			if err == nil {
				t.Fatal("no mistake found")
			}
			if got := err.Error(); got != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
}
