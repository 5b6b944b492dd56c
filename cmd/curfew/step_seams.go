package main

import (
	"github.com/curfewdb/curfew/recorder"
	"github.com/curfewdb/curfew/store"
)

// seams are where a test breaks the disk, the store and the clock (step_faults.go); empty in the product.
type seams struct {
	recorder func(*recorder.Options)
	store    func(*store.Options)
}

func (s seams) recorderOptions(o recorder.Options) recorder.Options {
	if s.recorder != nil {
		s.recorder(&o)
	}
	return o
}

func (s seams) storeOptions(o store.Options) store.Options {
	if s.store != nil {
		s.store(&o)
	}
	return o
}
