package standin

import (
	"context"
	"net/http"
	"sync"
	"time"
)

// platform is what the two publishing stand-ins share: it rolls the dice for a
// call, and has the effect before or after, or not at all.
type platform struct {
	name   string
	ledger *Ledger
	dice   dice

	mu       sync.Mutex     // protects following fields
	attempts map[string]int // by key
}

func newPlatform(name string, l *Ledger, d dice) *platform {
	return &platform{name: name, ledger: l, dice: d, attempts: make(map[string]int)}
}

// perform answers one well-formed call. answer writes the success.
func (p *platform) perform(w http.ResponseWriter, r *http.Request, post, key string, answer func(remote string)) {
	f, wait := p.dice.roll(p.name, key, p.attempt(key))
	p.ledger.count(func(c *Counts) {
		c.Attempts[p.name]++
		if f != faultNone {
			c.Faults[p.name]++
		}
	})
	if !sleep(r.Context(), wait) || p.failBefore(w, r, f) {
		return
	}
	remote, _, err := p.ledger.effect(p.name, post, key)
	switch {
	case err != nil:
		refuse(w, http.StatusInternalServerError, err.Error())
	case f == faultBroken:
		refuse(w, http.StatusInternalServerError, "something went wrong, and who knows when")
	case f == faultVanished:
		hang(r)
	default:
		answer(remote)
	}
}

// failBefore plays the faults that leave no effect.
func (p *platform) failBefore(w http.ResponseWriter, r *http.Request, f fault) bool {
	switch f {
	case faultDown:
		refuse(w, http.StatusServiceUnavailable, "down for maintenance")
	case faultLimited:
		w.Header().Set("Retry-After", "1")
		refuse(w, http.StatusTooManyRequests, "Too many requests")
	case faultRefused:
		refuse(w, http.StatusUnprocessableEntity, "Validation failed: not on our platform")
	case faultHung:
		hang(r)
	default:
		return false
	}
	return true
}

func (p *platform) attempt(key string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.attempts[key]++
	return p.attempts[key]
}

// hang answers nothing until the caller has given up or the world ends, and
// then cuts the connection.
func hang(r *http.Request) {
	<-r.Context().Done()
	panic(http.ErrAbortHandler)
}

// sleep waits, and says whether it could to the end.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
