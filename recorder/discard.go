package recorder

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Discard takes a recording back under which nothing was begun, as if it had never been: of a session that
// was refused before it was on the ledger. After an error it may be called again.
func (w *Writer) Discard() error {
	w.sealing.Lock()
	defer w.sealing.Unlock()
	if w.left || w.sealed != nil {
		return fmt.Errorf("discard %s: %w", w.header.Session, fs.ErrClosed)
	}
	w.mu.Lock()
	begun := w.statements > 0
	w.ended = w.ended || !begun
	w.mu.Unlock()
	if begun {
		return fmt.Errorf("the recording of %s holds statements and is not to be discarded", w.header.Session)
	}
	w.stop()
	w.closeFile()
	path := w.lib.openPath(w.header.Session)
	err := w.lib.do(OpRemove, path, func() error { return os.Remove(path) })
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		err = w.lib.syncDir(filepath.Dir(path))
	}
	if err != nil {
		w.lib.failed(err)
		return fmt.Errorf("discard %s: %w", w.header.Session, err)
	}
	w.lib.forget(w)
	return nil
}
