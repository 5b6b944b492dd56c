package export

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"

	"github.com/klauspost/compress/zstd"
)

// damaged is a bundle that can't be read to its end: a finding, not a failure of Verify.
type damaged struct{ err error }

func (e *damaged) Error() string { return e.err.Error() }
func (e *damaged) Unwrap() error { return e.err }

// read hands each member of a bundle to fn, in the bundle's order. r is nil for what is not a regular
// file; it is fn's only until it returns.
func read(ctx context.Context, path string, fn func(name string, r io.Reader) error) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if info.IsDir() {
		return readDir(ctx, path, fn)
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return readArchive(ctx, f, fn)
}

// readDir walks a directory through a root that no link leads out of.
func readDir(ctx context.Context, path string, fn func(string, io.Reader) error) error {
	root, err := os.OpenRoot(path)
	if err != nil {
		return err
	}
	defer root.Close()
	first := []string{manifestName, checkpointName, ledgerName}
	for _, name := range first {
		if err := readFile(root, name, fn); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		case d.IsDir() || slices.Contains(first, name):
			return nil
		}
		return readFile(root, name, fn)
	})
}

func readFile(root *os.Root, name string, fn func(string, io.Reader) error) error {
	info, err := root.Lstat(name)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fn(name, nil)
	}
	f, err := root.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return fn(name, f)
}

func readArchive(ctx context.Context, r io.Reader, fn func(string, io.Reader) error) error {
	z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(8<<20))
	if err != nil {
		return &damaged{err}
	}
	defer z.Close()
	t := tar.NewReader(z)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return trailer(z)
		}
		if err != nil {
			return &damaged{err}
		}
		switch h.Typeflag {
		case tar.TypeDir:
		case tar.TypeReg:
			err = fn(h.Name, t)
		default:
			err = fn(h.Name, nil)
		}
		if err != nil {
			return err
		}
	}
}

// trailer reads what is behind the archive: the compressed stream's own checksum is there, and bytes
// that hide behind the end are in no bundle that Write made.
func trailer(z io.Reader) error {
	buf := make([]byte, 32<<10)
	for {
		n, err := z.Read(buf)
		for _, b := range buf[:n] {
			if b != 0 {
				return &damaged{errors.New("something follows the end of the archive")}
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return &damaged{fmt.Errorf("after the end of the archive: %w", err)}
		}
	}
}
