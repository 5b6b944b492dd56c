// Package api is Curfew's HTTP/JSON API under /v1, described by the OpenAPI 3.1 document that it serves
// at /openapi.json, and the Go client of it: both sides use the structs of types.go.
//
// What a caller of the API may rely on:
//
//   - Every route but login, health, readiness and the OpenAPI document needs a Curfew session token,
//     "Authorization: Bearer …". A route is closed unless it says that it is open.
//   - Every error is application/problem+json (RFC 9457) with a code from a closed set (Code constants),
//     a sentence that says what happened, and next, what to do about it. All fields that are wrong are
//     named at once. Whatever is not meant for strangers' eyes is in the server's log instead, under the
//     incident number that the answer gives.
//   - Something that the asker may not see answers exactly like something that does not exist.
//   - A download (recording, export) that ends early is cut, not closed: a client that reads to a proper
//     end has everything.
//   - GET /v1/requests/{id}?wait=30s answers when the request is no longer open, or when the time is up,
//     whichever is first, with the request as it then is. It changes nothing, so ask again at will.
//
// The package declares what it consumes (Logins, Requests, Grants, Sessions, Evidence); package control
// and the store stand behind these, joined in cmd/curfew.
package api
