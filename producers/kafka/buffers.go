package kafka

import (
	"slices"
	"sync"
)

const (
	// trusted is the largest answer for which a buffer is made on its length alone.
	trusted = 16 << 20
	// bufferUnit is what sizes of buffers are rounded up to, and smallUnit those of
	// smaller ones: a few messages at the tail of a partition must not count as many.
	bufferUnit = 64 << 10
	smallUnit  = 4 << 10
	// spell is after how many answers what is kept is looked at anew.
	spell = 64
)

// buffers lends the memory that answers to Fetch are read into: it comes back once
// all records were copied out of it. What is lent and what waits here are together
// within most, and within a quarter more than was lent at most in this and the last spell,
// as far as what is lent allows: to make a buffer anew costs more than to use it.
type buffers struct {
	mu   sync.Mutex // protects following fields
	most int
	lent int
	kept int
	free [][]byte // rising in size
	// used is how many times something was lent in this spell, peak what was lent at most
	// in it, and before the same of the last one.
	used, peak, before int
}

// lend returns a buffer of size bytes with whatever was in it: one of less than twice as
// many, or of more while less than half of most is lent. Nil makes one.
func (b *buffers) lend(size int) []byte {
	if b == nil {
		return make([]byte, size)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	defer b.note()
	i := slices.IndexFunc(b.free, func(f []byte) bool { return cap(f) >= size })
	if i >= 0 && (cap(b.free[i]) <= max(2*size, bufferUnit) || b.lent+cap(b.free[i]) <= b.most/2) {
		buffer := b.free[i]
		b.free = slices.Delete(b.free, i, i+1)
		b.kept -= cap(buffer)
		b.lent += cap(buffer)
		return buffer[:size]
	}
	unit := bufferUnit
	if size < bufferUnit {
		unit = smallUnit
	}
	buffer := make([]byte, size, (size+unit-1)/unit*unit)
	b.lent += cap(buffer)
	return buffer
}

// note counts what was lent. Callers hold mu.
func (b *buffers) note() {
	if b.peak, b.used = max(b.peak, b.lent), b.used+1; b.used == spell {
		b.used, b.before, b.peak = 0, b.peak, b.lent
	}
	b.trim()
}

// grow appends n bytes, whatever is in them, to a buffer that lend returned, which must
// not be used any more.
func (b *buffers) grow(buffer []byte, n int) []byte {
	larger := b.lend(len(buffer) + n)
	copy(larger, buffer)
	b.back(buffer)
	return larger
}

// back takes a buffer that lend returned.
func (b *buffers) back(buffer []byte) {
	if b == nil || buffer == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lent -= cap(buffer)
	i := slices.IndexFunc(b.free, func(f []byte) bool { return cap(f) >= cap(buffer) })
	if i < 0 {
		i = len(b.free)
	}
	b.free = slices.Insert(b.free, i, buffer)
	b.kept += cap(buffer)
	b.trim()
}

// bound sets most.
func (b *buffers) bound(most int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.most = most
	b.trim()
}

// trim lets go of what waits beyond the bounds, the smallest first. Callers hold mu.
func (b *buffers) trim() {
	lately := max(b.peak, b.before)
	for len(b.free) > 0 && b.lent+b.kept > min(b.most, lately+lately/4) {
		b.kept -= cap(b.free[0])
		b.free = slices.Delete(b.free, 0, 1)
	}
}
