//go:build !race

package control

const unhurried = 1
