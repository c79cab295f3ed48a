package broadway

import (
	"context"
	"time"
)

// watch advances the pool's coarse clock and finds handlings that take longer than
// their time-out: one goroutine for all workers and reporters, and no timer per
// message. ctx is that of replacements.
func (p *Pipeline) watch(ctx context.Context, stop <-chan struct{}) {
	crews := p.crews()
	tick := visitTime
	for _, c := range crews {
		if t := c.timeout; t > 0 {
			tick = min(tick, max(t/8, time.Millisecond))
		}
	}
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	reviewed, looked, recalled, recallEvery := time.Now(), time.Now(), time.Now(), p.recallEvery()
	if recallEvery > 0 && recallEvery < tick {
		ticker.Reset(recallEvery)
	}
	for {
		select {
		case now := <-ticker.C:
			p.pool.clock.Store(p.clock.nanos(now))
			p.lookAtBatchers(now)
			if now.Sub(reviewed) >= visitTime {
				reviewed = now
				p.pool.review()
			}
			if now.Sub(looked) >= copyAge/2 {
				looked = now
				p.copyOut(now)
			}
			if recallEvery > 0 && now.Sub(recalled) >= recallEvery {
				recalled = now
				p.recall(now)
			}
			for _, c := range crews {
				c.look(ctx, now, tick)
			}
			if d, ordered := p.pool.dispatch.(*lanes); ordered {
				since := now.Add(-laneKept)
				d.open(p.pool.crew.slow(since), p.clock.nanos(since))
			}
		case <-stop:
			return
		}
	}
}

// review makes what waits for long go first. And the sources look at the queue: workers
// tell them that it is low once for each fetch, which may have been too early. So do the
// batchers, as a reference becomes full while a worker rests, and tells nobody: then what
// was fetched of it may be in a slow handler, and the rest in open batches.
func (l *pool) review() {
	if c, ok := l.dispatch.(*cursor); ok {
		c.age()
	}
	if l.p.count.full.Load() > 0 && l.quiet() {
		l.p.nudge()
	}
	if most, _ := l.p.want(); most > 0 {
		l.p.ledger.look()
	}
}

// crews are those of the pool and of all batchers.
func (p *Pipeline) crews() []*crew {
	crews := []*crew{&p.pool.crew}
	for _, b := range p.batchers {
		crews = append(crews, &b.crew)
	}
	return crews
}
