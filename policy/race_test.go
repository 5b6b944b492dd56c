//go:build race

package policy_test

// raceEnabled: under the race detector nothing is as fast as it is.
const raceEnabled = true
