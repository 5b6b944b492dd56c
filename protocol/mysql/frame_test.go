package mysql

import (
	"bytes"
	"errors"
	"io"
	"runtime"
	"testing"
	"testing/iotest"
)

// TestPackets: packets of every length that matters, in one piece and byte by byte, with and without reading ahead.
func TestPackets(t *testing.T) {
	var stream []byte
	var want [][]byte
	for i, n := range []int{0, 1, 250, 4091, 4092, 4093, 65535, maxFrame - 1, maxFrame, maxFrame + 1, 2*maxFrame + 7, 3} {
		payload := bytes.Repeat([]byte{byte('a' + i)}, n)
		want = append(want, payload)
		stream = appendPacket(stream, byte(seqAfter(want[:i])), payload)
	}
	for name, reader := range map[string]io.Reader{"whole": bytes.NewReader(stream), "half": iotest.HalfReader(bytes.NewReader(stream)), "with EOF": iotest.DataErrReader(bytes.NewReader(stream))} {
		for _, exact := range []bool{false, true} {
			if exact && name != "whole" {
				continue
			}
			r := &packetReader{conn: reader, exact: exact}
			for i, payload := range want {
				got, err := r.read(40 << 20)
				if err != nil || !bytes.Equal(got, payload) {
					t.Fatalf("%s, packet %d of %d bytes: %d bytes, %v", name, i, len(payload), len(got), err)
				}
				if exact && len(r.rest()) > 0 {
					t.Fatalf("%d bytes were read ahead", len(r.rest()))
				}
			}
			if _, err := r.read(100); err != io.EOF {
				t.Errorf("%s: at the end: %v", name, err)
			}
			if s, ok := reader.(io.Seeker); ok {
				s.Seek(0, io.SeekStart)
			} else {
				break
			}
		}
	}
	r := &packetReader{conn: iotest.OneByteReader(bytes.NewReader(stream[:70000]))}
	for _, payload := range want[:6] {
		if got, err := r.read(1 << 20); err != nil || !bytes.Equal(got, payload) {
			t.Fatalf("byte by byte: %d bytes, %v", len(got), err)
		}
	}
}

// seqAfter is the sequence number behind these packets.
func seqAfter(packets [][]byte) (n int) {
	for _, p := range packets {
		n += len(p)/maxFrame + 1
	}
	return n
}

// TestPacketLimit: what is too long is refused before it is held, however many frames it comes in.
func TestPacketLimit(t *testing.T) {
	long := appendPacket(nil, 0, make([]byte, maxFrame+100))
	for _, c := range []struct {
		limit int
		ok    bool
	}{{maxFrame + 100, true}, {maxFrame + 99, false}, {maxFrame, false}, {maxFrame - 1, false}, {1, false}} {
		r := &packetReader{conn: bytes.NewReader(long)}
		if got, err := r.read(c.limit); (err == nil) != c.ok || !c.ok && !errors.Is(err, errTooLong) || c.ok && len(got) != maxFrame+100 {
			t.Errorf("limit %d: %d bytes, %v", c.limit, len(got), err)
		}
	}
}

// TestLengthsAllocateNothing: a length is only a claim.
func TestLengthsAllocateNothing(t *testing.T) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 100 {
		r := &packetReader{conn: bytes.NewReader([]byte{0xff, 0xff, 0xff, 0, 1, 2, 3})}
		if _, err := r.read(1 << 30); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatal(err)
		}
	}
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 2<<20 {
		t.Errorf("%d bytes", grown)
	}
}

// TestPacketOrder: a sequence number that is not the next is refused, in a later frame, too.
func TestPacketOrder(t *testing.T) {
	long := appendPacket(nil, 7, make([]byte, maxFrame))
	long[len(long)-1]++
	for _, stream := range [][]byte{{1, 0, 0, 6, 0}, {1, 0, 0, 8, 0}, long} {
		r := &packetReader{conn: bytes.NewReader(stream), seq: 7}
		if _, err := r.read(1 << 30); !errors.Is(err, errSequence) {
			t.Errorf("%v", err)
		}
	}
	r := &packetReader{conn: bytes.NewReader([]byte{0, 0, 0, 255, 0, 0, 0, 0}), seq: 255}
	for range 2 {
		if _, err := r.read(1); err != nil {
			t.Error(err)
		}
	}
}

// TestPacketCutShort: the end of the stream amid a packet is not the end of a conversation.
func TestPacketCutShort(t *testing.T) {
	whole := appendPacket(appendPacket(nil, 0, []byte("hello")), 1, make([]byte, maxFrame))
	for _, n := range []int{1, 3, 4, 8, 10, 13, 1000, len(whole) - 4, len(whole) - 1} {
		r := &packetReader{conn: bytes.NewReader(whole[:n])}
		_, err := r.read(1 << 30)
		if n > 9 {
			if err != nil {
				t.Fatal(err)
			}
			_, err = r.read(1 << 30)
		}
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

// TestRest: what was read ahead is not lost.
func TestRest(t *testing.T) {
	r := &packetReader{conn: bytes.NewReader(append(appendPacket(nil, 0, []byte("a")), "more"...))}
	if _, err := r.read(10); err != nil || string(r.rest()) != "more" {
		t.Errorf("%q %v", r.rest(), err)
	}
}

func TestLenenc(t *testing.T) {
	for v, want := range map[uint64]string{
		0: "\x00", 250: "\xfa", 251: "\xfc\xfb\x00", 0xffff: "\xfc\xff\xff", 0x10000: "\xfd\x00\x00\x01", 0xffffff: "\xfd\xff\xff\xff",
		0x1000000: "\xfe\x00\x00\x00\x01\x00\x00\x00\x00", 1<<64 - 1: "\xfe\xff\xff\xff\xff\xff\xff\xff\xff",
	} {
		b := appendLenenc(nil, v)
		if string(b) != want {
			t.Errorf("%d: %q", v, b)
		}
		if got, n, ok := lenencInt(append(b, 9)); got != v || n != len(want) || !ok {
			t.Errorf("%d: read as %d in %d bytes, %v", v, got, n, ok)
		}
		for i := range b {
			if _, n, ok := lenencInt(b[:i]); ok || n != 0 {
				t.Errorf("%d: %d bytes pass", v, i)
			}
		}
	}
	for _, b := range []string{"", "\xfb", "\xff", "\xfb\x00", "\xff\x00\x00"} {
		if _, n, ok := lenencInt([]byte(b)); ok || n != 0 {
			t.Errorf("%q passes", b)
		}
	}
	for in, want := range map[string]string{"\x00x": "", "\x03abcx": "abc", "\xfc\x02\x00abx": "ab"} {
		if v, rest, ok := lenencBytes([]byte(in)); !ok || string(v) != want || string(rest) != "x" {
			t.Errorf("%q: %q %q %v", in, v, rest, ok)
		}
	}
	for _, in := range []string{"", "\x01", "\xfb", "\xfe\xff\xff\xff\xff\xff\xff\xff\xffabc", "\xfc\x03\x00ab"} {
		if v, _, ok := lenencBytes([]byte(in)); ok {
			t.Errorf("%q: %q", in, v)
		}
	}
}

// TestOK: what servers send, with and without session tracking, and what they can't have meant.
func TestOK(t *testing.T) {
	const plain, track = capProtocol41, capProtocol41 | capSessionTrack
	for _, c := range []struct {
		payload string
		caps    capability
		want    okPacket
		ok      bool
	}{
		{"\x00\x01\xfc\x00\x01\x02\x00\x03\x00", plain, okPacket{affected: 1, insertID: 256, status: 2, warnings: 3}, true},
		{"\xfe\x00\x00\x02\x00\x00\x00", track, okPacket{status: 2}, true},
		{"\x00\x00\x00\x02\x00\x00\x00\x05hello", plain, okPacket{status: 2, info: []byte("hello")}, true},
		{"\x00\x00\x00\x02\x00\x00\x00hello", plain, okPacket{status: 2, info: []byte("hello")}, true},
		{"\x00\x00\x00\x02\x00\x00\x00\x05hello", track, okPacket{status: 2, info: []byte("hello")}, true},
		{"\x00\x00\x00\x02\x40\x00\x00\x00\x03\x01\x01x", track, okPacket{status: 0x4002, info: []byte{}, state: []byte("\x01\x01x")}, true},
		{"\x00\x00\x00\x02\x40\x00\x00", plain, okPacket{status: 0x4002}, true},
		{"\x00\x01\x02", 0, okPacket{affected: 1, insertID: 2}, true},
		{"\x00\x01\x02\x03\x00", capTransactions, okPacket{affected: 1, insertID: 2, status: 3}, true},
		{"", track, okPacket{}, false},
		{"\x00\x00\x00\x02\x40\x00\x00", track, okPacket{}, false},
		{"\x00\x00\x00\x02\x40\x00\x00\x00", track, okPacket{}, false},
		{"\x00\x00\x00\x02\x40\x00\x00\x00\x03\x01\x01", track, okPacket{}, false},
		{"\x00\x00\x00\x02\x00\x00\x00\x05hell", track, okPacket{}, false},
		{"\x00\x00\x00\x02\x00\x00\x00\x05helloX", track, okPacket{}, false},
		{"\x00\xff\x00\x02\x00\x00\x00", track, okPacket{}, false},
		{"\x00\x00\x00\x02\x00\x00", track, okPacket{}, false},
		{"\x00\x00\x00\x02", track, okPacket{}, false},
		{"\x00\x00", track, okPacket{}, false},
	} {
		got, ok := parseOK([]byte(c.payload), c.caps)
		if ok != c.ok {
			t.Errorf("%q: %v", c.payload, ok)
			continue
		}
		if !ok {
			continue
		}
		if got.affected != c.want.affected || got.insertID != c.want.insertID || got.status != c.want.status || got.warnings != c.want.warnings ||
			!bytes.Equal(got.info, c.want.info) || !bytes.Equal(got.state, c.want.state) {
			t.Errorf("%q: %+v", c.payload, got)
		}
		if c.caps&capProtocol41 != 0 {
			again, ok := parseOK(appendOK(nil, got, c.caps), c.caps)
			if !ok || !bytes.Equal(again.info, got.info) || !bytes.Equal(again.state, got.state) || again.affected != got.affected || again.status != got.status {
				t.Errorf("%q: written and read again: %+v", c.payload, again)
			}
		}
	}
}

func TestErr(t *testing.T) {
	for _, caps := range []capability{0, capProtocol41} {
		msg := appendErr(nil, 5, caps, 1045, "28000", "no")
		r := &packetReader{conn: bytes.NewReader(msg), seq: 5}
		payload, err := r.read(100)
		if err != nil {
			t.Fatal(err)
		}
		e, ok := parseErr(payload, caps)
		if !ok || e.code != 1045 || string(e.message) != "no" || (caps != 0) != (string(e.state) == "28000") {
			t.Errorf("%+v %v", e, ok)
		}
	}
	if e, ok := parseErr([]byte("\xff\x10\x04Too many connections"), capProtocol41); !ok || e.code != 1040 || e.state != nil || string(e.message) != "Too many connections" {
		t.Errorf("%+v %v", e, ok)
	}
	if e, ok := parseErr([]byte("\xff\x10\x04#cut"), capProtocol41); !ok || string(e.message) != "#cut" {
		t.Errorf("%+v %v", e, ok)
	}
	for _, b := range []string{"", "\xff", "\xff\x10"} {
		if _, ok := parseErr([]byte(b), capProtocol41); ok {
			t.Errorf("%q passes", b)
		}
	}
}
