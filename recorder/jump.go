package recorder

import (
	"bufio"
	"io"
	"time"
)

// near is how close a search by halves comes before lines are read one by one.
const near = 64 << 10

// Jump goes on with an event before the first one that is at or later, and passes over most of what is before,
// if the Reader reads a [Text]; else it does nothing. What is passed over is not held against the format, and its
// times are taken to go on, as they do in every right recording; where a line that it looks at is wrong, it does
// nothing. The header has to be read before.
func (r *Reader) Jump(at time.Duration) {
	t, ok := r.r.(Text)
	if !ok || r.err != nil || r.line == 0 {
		return
	}
	r.text = t
	var seq uint64
	from, err := r.halve(func(e *Event) int {
		switch {
		case e.Erased != "":
			return 0
		case time.Duration(e.Micros)*time.Microsecond < at:
			seq = e.Seq
			return -1
		}
		return 1
	})
	if err != nil || from == 0 {
		return
	}
	r.r = io.NewSectionReader(t, from, t.Size()-from)
	r.start, r.end, r.looked, r.eof = 0, 0, 0, false
	r.seq, r.line, r.ended = seq, int64(seq), false
}

// Statement finds a statement by its number wherever it stands, if the Reader reads a [Text]. It takes statements
// to be numbered in the order they stand in.
func (r *Reader) Statement(id uint64) (Event, bool) {
	if r.text == nil {
		t, ok := r.r.(Text)
		if !ok {
			return Event{}, false
		}
		r.text = t
	}
	from, err := r.halve(func(e *Event) int {
		switch {
		case e.Type != TypeStatement:
			return 0
		case e.ID <= id:
			return -1
		}
		return 1
	})
	if err != nil {
		return Event{}, false
	}
	var found Event
	err = r.each(from, r.text.Size(), func(_ int64, e *Event) bool {
		if e.Type == TypeStatement && e.ID >= id {
			found = *e
			return false
		}
		return true
	})
	return found, err == nil && found.ID == id && found.Type == TypeStatement
}

// halve gives the place of a line, the last that it found to be before what is looked for, or 0. which says whether
// an event is before it (-1), is not (1), or can't tell (0).
func (r *Reader) halve(which func(e *Event) int) (int64, error) {
	low, high := int64(0), r.text.Size()
	for high-low > near {
		middle := low + (high-low)/2
		place, is := high, 0
		err := r.each(r.behind(middle), high, func(at int64, e *Event) bool {
			place, is = at, which(e)
			return is == 0
		})
		if err != nil {
			return 0, err
		}
		if is < 0 {
			low = place
		} else {
			high = middle
		}
	}
	return low, nil
}

// behind is where the first line behind a place begins, and less than 0 if none does.
func (r *Reader) behind(at int64) int64 {
	lines := bufio.NewReaderSize(io.NewSectionReader(r.text, at, r.text.Size()-at), 4<<10)
	for {
		part, err := lines.ReadSlice('\n')
		at += int64(len(part))
		switch err {
		case nil:
			return at
		case bufio.ErrBufferFull:
		default:
			return -1
		}
	}
}

// each gives the events of the lines that begin from a place on and before another, as long as more says so. A
// line that can't be read ends it.
func (r *Reader) each(from, before int64, more func(at int64, e *Event) bool) error {
	if from < 0 {
		return nil
	}
	lines := &Reader{r: io.NewSectionReader(r.text, from, r.text.Size()-from), limit: r.limit, chunk: 8 << 10}
	for from < before {
		line, err := lines.next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		e, err := lines.event(line)
		if err != nil {
			return err
		}
		if !more(from, &e) {
			return nil
		}
		from += int64(len(line)) + 1
	}
	return nil
}
