//go:build race

package mysql

// Under the race detector a test of many megabytes takes ten times as long: it does with fewer cases, and
// make test has all of them without it.
const raceDetector = true
