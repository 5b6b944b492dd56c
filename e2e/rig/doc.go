// Package rig is what measuring and soaking need beside a story's stage: servers that take a thousand
// connections, the API with a person's own login for what is done by the hundred, and what /proc tells
// of a process.
//
// What a caller may rely on: what Start… starts is gone after its Close, and with this process however it
// ends. Nothing here changes what is measured: the servers differ from a story's by settings only.
package rig
