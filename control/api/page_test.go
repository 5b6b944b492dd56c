package api_test

import (
	"net/http"
	"testing"
)

// A list that is cut at its limit says in its Link header where it goes on, with all else that was asked for.
func TestListsSayWhereTheyGoOn(t *testing.T) {
	c := serve(t, newFake())
	for path, want := range map[string]string{
		"/v1/grants?limit=1&target=orders&mine=true": `</v1/grants?after=g1&limit=1&mine=true&target=orders>; rel="next"`,
		"/v1/sessions?limit=1&after=s0":              `</v1/sessions?after=s1&limit=1>; rel="next"`,
		"/v1/grants?limit=2":                         "",
		"/v1/requests?limit=1":                       "", // empty
	} {
		res := get(t, c, http.MethodGet, path, "Bearer alice", "")
		if got := res.header.Get("Link"); got != want || res.status != http.StatusOK {
			t.Errorf("%s: %d, Link %q, want %q", path, res.status, got, want)
		}
	}
}
