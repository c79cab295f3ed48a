package broadway

import "time"

// watch advances the pool's coarse clock and cancels handlings that take longer
// than Timeout: one goroutine for all workers, and no timer per message.
func (l *pool) watch(stop <-chan struct{}) {
	tick := visitTime
	if l.cfg.Timeout > 0 {
		tick = min(max(l.cfg.Timeout/8, time.Millisecond), visitTime)
	}
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	looked := time.Now()
	for {
		select {
		case now := <-ticker.C:
			l.clock.Store(now.UnixNano())
			l.p.lookAtBatchers(now)
			if now.Sub(looked) >= copyAge/2 {
				looked = now
				l.p.copyOut(now)
			}
			if l.cfg.Timeout > 0 {
				for _, w := range l.workers {
					// The clock that a handling began by may be a tick behind.
					w.expire(now.Add(-l.cfg.Timeout - tick).UnixNano())
				}
			}
		case <-stop:
			return
		}
	}
}
