// Package emf turns lines in CloudWatch's embedded metric format (AWS: "Specification: Embedded metric format") into
// OpenTelemetry metrics, recorded by the SDK. docs/decisions/0021-emf.md says how one maps to the other.
//
//	recorder, err := emf.NewRecorder(emf.Config{Providers: …})
//	source := recorder.Source(attribute.String("faas.name", "order-writer"))
//	out := source.Splitter()  // an io.WriteCloser for what the function prints
//
// Invariants: a line that is none of the format costs a look at its first byte and a search, no more. What a function
// prints decides names and dimensions, so all of it is bounded: a line's length, metrics, series and the bytes of what
// tells series apart. Nothing is dropped without being counted, by its reason, in weir.emf.dropped. Values go into one
// series in the order of the lines, and are added up as they are.
//
// May import: the OpenTelemetry API, jsontext, and the translator of names for Prometheus, so as to know which would clash
// there; no SDK and no exporter.
package emf
