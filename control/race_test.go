//go:build race

package control

// unhurried is how many times fewer runs there are where each takes that much longer.
const unhurried = 5
