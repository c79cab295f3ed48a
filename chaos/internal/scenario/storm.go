package scenario

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/gobroadway/gobroadway/chaos/internal/check"
	"github.com/gobroadway/gobroadway/chaos/internal/ledger"
	"github.com/gobroadway/gobroadway/chaos/internal/load"
	"github.com/gobroadway/gobroadway/chaos/internal/rig"
	"github.com/gobroadway/gobroadway/chaos/internal/worker"
)

// storm lets members leave and join: by Close, and by losing their network, so that nobody tells the group.
type storm struct {
	bench   *kafkaBench
	workers []*rig.Process
	members int // of each worker
	random  *rand.Rand
	gone    map[string]bool // by LeaveGroup
	denied  map[string]bool // off the network
	toggles int
}

func (s *storm) name(w, m int) string { return fmt.Sprintf("w%d-%d", w, m) }

// toggle makes one member leave, or come back. At least one in three stays.
func (s *storm) toggle() error {
	w, m := s.random.IntN(len(s.workers)), s.random.IntN(s.members)
	name := s.name(w, m)
	s.toggles++
	switch {
	case s.gone[name]:
		delete(s.gone, name)
		return s.workers[w].Send(worker.Command{Join: true, Member: m})
	case s.denied[name]:
		delete(s.denied, name)
		s.deny()
	case 3*(len(s.gone)+len(s.denied)+1) > 2*len(s.workers)*s.members:
	case s.random.IntN(2) == 0:
		s.gone[name] = true
		return s.workers[w].Send(worker.Command{Leave: true, Member: m})
	default:
		s.denied[name] = true
		s.deny()
		s.bench.rig.Proxy.CutClient(func(client string) bool { return client == name })
	}
	return nil
}

// deny tells the proxy who is off the network.
func (s *storm) deny() {
	denied := make(map[string]bool, len(s.denied))
	for name := range s.denied {
		denied[name] = true
	}
	s.bench.rig.Proxy.Deny(func(client string) bool { return denied[client] })
}

// run storms for a while, and then brings everyone back.
func (s *storm) run(ctx context.Context, length time.Duration) error {
	end := time.Now().Add(length)
	for time.Now().Before(end) {
		if err := s.toggle(); err != nil {
			return err
		}
		if err := sleep(ctx, time.Duration(200+s.random.IntN(300))*time.Millisecond); err != nil {
			return err
		}
	}
	clear(s.denied)
	s.deny()
	for w := range s.workers {
		for m := range s.members {
			if !s.gone[s.name(w, m)] {
				continue
			}
			if err := s.workers[w].Send(worker.Command{Join: true, Member: m}); err != nil {
				return err
			}
		}
	}
	return nil
}

// rebalanceStorm is B1.
func rebalanceStorm(ctx context.Context, env *Env) (*Outcome, error) {
	const processes, members, partitions = 3, 4, 80
	bench, err := newKafkaBench(ctx, env, partitions)
	if err != nil {
		return nil, err
	}
	defer bench.close()
	n := env.N(500_000, 20_000)
	if err := bench.produce(ctx, load.Spec{Messages: n, Producers: 4}); err != nil {
		return nil, err
	}
	cfg := bench.config(partitions * 48)
	length := env.For(120*time.Second, 12*time.Second)
	cfg.Members, cfg.Concurrency = members, 4
	cfg.Delay = length * processes * members * time.Duration(cfg.Concurrency) / time.Duration(n) // enough to do for as long as it storms
	cfg.Kafka.SessionTimeout, cfg.Kafka.RebalanceTimeout = 3*time.Second, 5*time.Second
	workers, err := bench.startAll(ctx, processes, cfg)
	if err != nil {
		return nil, err
	}
	s := &storm{bench: bench, workers: workers, members: members, random: env.Rand("storm"), gone: map[string]bool{}, denied: map[string]bool{}}
	err = bench.journal.during(ledger.Fault{Kind: "rebalance storm"}, func() error { return s.run(ctx, length) })
	if err != nil {
		return nil, err
	}
	over := time.Now()
	err = poll(ctx, time.Minute, "every member is back in the group", func() (bool, error) {
		state, in, err := bench.rig.GroupState(ctx, bench.name)
		return err == nil && state == "Stable" && in == processes*members, err
	})
	if err != nil {
		return nil, err
	}
	whole := time.Since(over)
	if err := bench.awaitDrained(ctx, 5*time.Minute); err != nil {
		return nil, err
	}
	drained := time.Since(over)
	generations := bench.total("generations")
	outcome, err := bench.finish(ctx, check.Rules{Duplicates: n / 50, Backlog: true})
	if err != nil {
		return nil, err
	}
	outcome.Note("%d messages, %d partitions, %d members; %d leaves and joins, %d assignments; all back after %.1f s, drained after %.0f s",
		n, partitions, processes*members, s.toggles, generations, whole.Seconds(), drained.Seconds())
	return outcome, nil
}
