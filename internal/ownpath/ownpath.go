// Package ownpath says which paths of the public port are Weir's own: all of them are below one prefix, so that an API
// may have any other. Clients follow Location and links; they don't build these paths.
//
// May import: the standard library only.
package ownpath

import "strings"

// Prefix is reserved: no route of an API is below it. The rule of the custom resource (v1alpha1.RouteMatch) says the same.
const Prefix = "/weir/"

// What is below it.
const (
	Jobs      = Prefix + "jobs/"      // {id}, {id}/result, {id}/events, {id}/socket; events and socket of several jobs
	NewFeed   = Prefix + "feeds"      // POST
	Feeds     = Prefix + "feeds/"     // {id}/events, {id}/socket
	Uploads   = Prefix + "uploads"    // POST
	Objects   = Prefix + "objects/"   // {permit}
	Callbacks = Prefix + "callbacks/" // {callback}
)

// Reserved reports whether path, of a request or a route, is Weir's own.
func Reserved(path string) bool {
	return strings.HasPrefix(path, Prefix) || path == strings.TrimSuffix(Prefix, "/")
}
