// Package dex tries Curfew's logins at Dex, a provider that Curfew has nothing to do with: it asserts neither acr
// nor amr. Its test is built with the tag dex (make dex), because building Dex takes longer than all the stories'
// code.
package dex
