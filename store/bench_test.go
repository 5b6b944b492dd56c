package store

import (
	"fmt"
	"testing"

	"github.com/curfewdb/curfew/recorder/ledger"
)

func BenchmarkAppend(b *testing.B) {
	s := open(b, b.TempDir())
	read := ledger.RecordingRead{Session: "s0123456789ab", How: "replay", From: "192.0.2.1"}
	for b.Loop() {
		if err := s.append(b.Context(), ledger.TypeRecordingRead, read); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOpen100k(b *testing.B) {
	dir := b.TempDir()
	s := open(b, dir)
	update(b, s, func(tx *Tx) error {
		for i := range 100_000 {
			read := ledger.RecordingRead{Session: fmt.Sprintf("s%012d", i), How: "replay", From: "192.0.2.1",
				Person: ledger.Person{Issuer: "https://id.example.test", Subject: "1", Email: "sam@example.test", Groups: []string{"security"}}}
			if err := tx.Append(ledger.TypeRecordingRead, read); err != nil {
				return err
			}
		}
		return nil
	})
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		s, err := Open(b.Context(), options(dir))
		if err != nil {
			b.Fatal(err)
		}
		s.Close()
	}
}
