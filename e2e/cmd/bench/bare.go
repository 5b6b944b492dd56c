package main

const bareName = "bare-relay"

func bareMain([]string) {}
