package stage

// asks is the queue of asks that the fetch function has not been called for.
// They are kept apart, as consumers made them: a fetch answers one ask.
type asks struct {
	sizes []int // sizes[head:] wait, oldest first
	head  int
	sum   int
}

// aim makes the queue add up to target: by one more ask, or by taking back the
// newest ones. It tells whether it added one.
func (a *asks) aim(target int) bool {
	if target > a.sum {
		a.push(target - a.sum)
		return true
	}
	for a.sum > target {
		last := len(a.sizes) - 1
		back := min(a.sizes[last], a.sum-target)
		a.sum -= back
		a.sizes[last] -= back
		if a.sizes[last] == 0 {
			a.sizes = a.sizes[:last]
		}
	}
	return false
}

func (a *asks) push(n int) {
	if a.head == len(a.sizes) {
		a.sizes, a.head = a.sizes[:0], 0
	}
	if a.head > 0 && len(a.sizes) == cap(a.sizes) {
		a.sizes = a.sizes[:copy(a.sizes, a.sizes[a.head:])]
		a.head = 0
	}
	a.sizes = append(a.sizes, n)
	a.sum += n
}

// pop takes the oldest ask, or returns 0 if there is none.
func (a *asks) pop() int {
	if a.sum == 0 {
		return 0
	}
	n := a.sizes[a.head]
	a.head++
	a.sum -= n
	return n
}

// unpop puts back what is left of the ask that was popped last, before all
// others.
func (a *asks) unpop(n int) {
	if n == 0 {
		return
	}
	if a.head == 0 {
		a.sizes = append(a.sizes, 0)
		copy(a.sizes[1:], a.sizes)
		a.head = 1
	}
	a.head--
	a.sizes[a.head] = n
	a.sum += n
}
