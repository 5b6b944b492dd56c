package main

import (
	"archive/tar"
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/zstd"

	"github.com/curfewdb/curfew/control/api"
	"github.com/curfewdb/curfew/recorder"
)

// localFile is a recording that is read from disk, and everything to close behind it.
type localFile struct {
	io.Reader
	closers []func() error
}

func (l *localFile) Close() error {
	var err error
	for i := len(l.closers) - 1; i >= 0; i-- {
		err = errors.Join(err, l.closers[i]())
	}
	return err
}

// openLocal opens a recording's file, or one session of a bundle (a directory or the .tar.zst of one).
func openLocal(name, session string) (io.ReadCloser, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		if name, err = inDirectory(name, session); err != nil {
			return nil, err
		}
	}
	if !strings.HasSuffix(name, ".tar.zst") && !strings.HasSuffix(name, ".tar") {
		return openPlain(name)
	}
	if session == "" {
		if session, err = onlySession(name); err != nil {
			return nil, err
		}
	}
	l, err := openPlain(name)
	if err != nil {
		return nil, err
	}
	if err := l.inBundle(session); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

func openPlain(name string) (*localFile, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	l := &localFile{closers: []func() error{f.Close}}
	if l.anywhere(f) {
		return l, nil
	}
	if err := l.plain(f); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// anywhere tries to read a sealed recording so that replay can jump in it.
func (l *localFile) anywhere(f *os.File) bool {
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() || !strings.HasSuffix(f.Name(), ".jsonl.zst") {
		return false
	}
	text, err := recorder.SealedText(f, info.Size())
	l.Reader = text
	return err == nil
}

// plain takes the compression off, if there is one.
func (l *localFile) plain(r io.Reader) error {
	b := bufio.NewReader(r)
	l.Reader = b
	magic, err := b.Peek(4)
	if err != nil && err != io.EOF {
		return err
	}
	// A seekable file may also begin with a skippable frame, 0x184D2A5?.
	if !bytes.Equal(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}) && !(len(magic) == 4 && magic[0]&0xf0 == 0x50 && bytes.Equal(magic[1:], []byte{0x2a, 0x4d, 0x18})) {
		return nil
	}
	// The file may come from anybody: what it makes us hold is bounded.
	z, err := zstd.NewReader(b, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(128<<20))
	if err != nil {
		return err
	}
	l.closers = append(l.closers, func() error { z.Close(); return nil })
	l.Reader = z
	return nil
}

// inBundle reads on to the session's recording.
func (l *localFile) inBundle(session string) error {
	var there []string
	t := tar.NewReader(l.Reader)
	for {
		h, err := t.Next()
		if err == io.EOF {
			return notInBundle(session, there)
		}
		if err != nil {
			return err
		}
		id, ok := sessionOf(h.Name)
		if !ok {
			continue
		}
		if there = append(there, id); id == session {
			return l.plain(t)
		}
	}
}

// onlySession names the session of a bundle that has one alone.
func onlySession(name string) (string, error) {
	l, err := openPlain(name)
	if err != nil {
		return "", err
	}
	defer l.Close()
	var there []string
	t := tar.NewReader(l.Reader)
	for {
		h, err := t.Next()
		if err == io.EOF && len(there) == 1 {
			return there[0], nil
		}
		if err == io.EOF {
			return "", notInBundle("", there)
		}
		if err != nil {
			return "", err
		}
		if id, ok := sessionOf(h.Name); ok {
			there = append(there, id)
		}
	}
}

// sessionOf names the session of a bundle's recordings/<session>.jsonl[.zst].
func sessionOf(name string) (string, bool) {
	dir, file := path.Split(path.Clean(name))
	id, ok := strings.CutSuffix(strings.TrimSuffix(file, ".zst"), ".jsonl")
	return id, ok && path.Base(dir) == "recordings"
}

func inDirectory(dir, session string) (string, error) {
	files, err := filepath.Glob(filepath.Join(dir, "recordings", "*.jsonl*"))
	if err != nil {
		return "", err
	}
	var there []string
	for _, f := range files {
		id, ok := sessionOf(filepath.ToSlash(f))
		if !ok {
			continue
		}
		if there = append(there, id); id == session {
			return f, nil
		}
	}
	if session == "" && len(there) == 1 {
		return files[0], nil
	}
	return "", notInBundle(session, there)
}

func notInBundle(session string, there []string) error {
	switch {
	case len(there) == 0:
		return problem(exitNotFound, api.CodeNotFound, "this bundle has no recording", "")
	case session == "":
		return problem(exitUsage, "usage", "this bundle has several recordings", "say which: --session "+there[0])
	default:
		return problem(exitNotFound, api.CodeNotFound, fmt.Sprintf("this bundle has no recording of session %q", session), "it has "+list(there))
	}
}
