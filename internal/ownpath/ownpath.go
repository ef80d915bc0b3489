// Package ownpath says which paths of the public port are Weir's own: all of them are below one prefix, so that an API
// may have any other. Clients follow Location and links; they don't build these paths.
//
// May import: the standard library only.
package ownpath

import (
	"fmt"
	"path"
	"strings"
)

// Prefix is reserved: no route of an API is below it. The rule of the custom resource (v1alpha1.RouteMatch) says the same.
const Prefix = "/weir/"

// What is below it.
const (
	Jobs       = Prefix + "jobs/"       // {id}, {id}/result, {id}/events, {id}/socket; events and socket of several jobs
	NewFeed    = Prefix + "feeds"       // POST
	Feeds      = Prefix + "feeds/"      // {id}/events, {id}/socket
	Uploads    = Prefix + "uploads"     // POST
	Objects    = Prefix + "objects/"    // {permit}
	Callbacks  = Prefix + "callbacks/"  // {callback}
	Tasks      = Prefix + "tasks/"      // {token}/success, {token}/failure, {token}/heartbeat
	Activities = Prefix + "activities/" // {address}/tasks
)

// Reserved reports whether path, of a request or a route, is Weir's own.
func Reserved(path string) bool {
	return strings.HasPrefix(path, Prefix) || path == strings.TrimSuffix(Prefix, "/")
}

// Base is the path below which clients find Weir: a proxy in front takes it off. Every address that clients are given
// begins with it, and none that Weir serves or functions call. Empty if there is none.
type Base string

const maxBase = 256

// ParseBase reads a base such as /shop; empty is none.
func ParseBase(text string) (Base, error) {
	const plain = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~" // unreserved (RFC 3986, section 2.3)
	switch {
	case text == "":
		return "", nil
	case text[0] != '/' || text == "/" || path.Clean(text) != text || strings.Trim(text, plain+"/") != "" || len(text) > maxBase:
		return "", fmt.Errorf("%.300q: must be a path such as /shop, of letters, digits and - . _ ~ between slashes, without one at its end, at most %d bytes", text, maxBase)
	}
	return Base(text), nil
}

// Of returns the address of own, one of Weir's paths, for clients.
func (b Base) Of(own string) string { return string(b) + own }
