package stage_test

import (
	"testing"

	"github.com/gobroadway/gobroadway/broadway/stage"
)

// unit is where one unit of the bound is; the model moves them one at a time.
type unit int

const (
	free unit = iota
	reserved
	taken
)

// model is the naive ledger: it has a slot per unit of the bound, and one more
// slot per unit of an overdraft, which disappears when it is set free.
type model struct {
	slots []unit
	bound int
}

func (m *model) count(u unit) (n int) {
	for _, s := range m.slots {
		if s == u {
			n++
		}
	}
	return n
}

// move takes n slots from one state to another, or none if there are too few.
func (m *model) move(n int, from, to unit) bool {
	if n < 0 || m.count(from) < n {
		return false
	}
	for i := 0; n > 0; i++ {
		if m.slots[i] == from {
			m.slots[i] = to
			n--
		}
	}
	m.trim()
	return true
}

// trim drops free slots beyond the bound: they belonged to an overdraft.
func (m *model) trim() {
	for i := 0; i < len(m.slots) && len(m.slots) > m.bound; {
		if m.slots[i] == free {
			m.slots = append(m.slots[:i], m.slots[i+1:]...)
			continue
		}
		i++
	}
}

func (m *model) alone(n int) bool {
	if n < 0 || m.count(free) != len(m.slots) {
		return false
	}
	for len(m.slots) < n {
		m.slots = append(m.slots, free)
	}
	for i := range n {
		m.slots[i] = reserved
	}
	return true
}

// step does one transition on both and tells whether they agreed about it.
func step(t *testing.T, c *stage.Credit, m *model, op byte, n int) {
	t.Helper()
	var ok, want bool
	var granted, grant int
	err := refused(t, func() {
		switch op % 5 {
		case 0:
			granted, ok = int(c.Reserve(int64(n))), true
		case 1:
			c.Take(int64(n))
			ok = true
		case 2:
			c.Cancel(int64(n))
			ok = true
		case 3:
			c.Return(int64(n))
			ok = true
		case 4:
			ok = c.ReserveAlone(int64(n))
		}
	})
	switch op % 5 {
	case 0:
		grant = min(n, m.count(free))
		want = m.move(grant, free, reserved)
	case 1:
		want = m.move(n, reserved, taken)
	case 2:
		want = m.move(n, reserved, free)
	case 3:
		want = m.move(n, taken, free)
	case 4:
		want = m.alone(n)
	}
	if err != nil {
		granted, grant = 0, 0
	}
	if ok != want || granted != grant {
		t.Fatalf("op %d(%d): ledger says %v, %d (%v), model says %v, %d", op%5, n, ok, granted, err, want, grant)
	}
}

func FuzzCredit(f *testing.F) {
	f.Add(uint8(10), []byte{0, 7, 1, 4, 2, 3, 3, 4})
	f.Add(uint8(3), []byte{4, 9, 1, 9, 3, 6, 0, 1, 3, 1, 0, 1})
	f.Add(uint8(1), []byte{3, 1, 1, 1, 0, 200, 0, 1})
	f.Fuzz(func(t *testing.T, bound uint8, ops []byte) {
		size := int(bound)%50 + 1
		c := stage.NewCredit(int64(size))
		m := &model{slots: make([]unit, size), bound: size}
		for i := 0; i+1 < len(ops); i += 2 {
			step(t, c, m, ops[i], int(int8(ops[i+1])))
			got := show(c)
			// During an overdraft the ledger's free is negative, and the
			// model's is nothing.
			want := ledger{int64(size - m.count(reserved) - m.count(taken)), int64(m.count(reserved)), int64(m.count(taken))}
			if got != want {
				t.Fatalf("after op %d(%d): ledger %+v, model %+v", ops[i]%5, int8(ops[i+1]), got, want)
			}
			if len(m.slots) == size && got.reserved+got.taken > int64(size) {
				t.Fatalf("over the bound without an overdraft: %+v", got)
			}
		}
	})
}
