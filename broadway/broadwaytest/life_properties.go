package broadwaytest

import (
	"github.com/gobroadway/gobroadway/broadway"
)

func lifeProperties() []Property {
	return []Property{
		{"DrainHandsBack", "what was never fetched is left at the source by Drain and Close", drainHandsBack},
		{"RedeliversUnsettled", "what was fetched and not settled before Close is delivered again", redeliversUnsettled},
		{"ClosesCleanly", "Close ends every reference, works without a connection, and does no harm when called again", closesCleanly},
	}
}

func drainHandsBack(k *check) {
	s := k.source()
	all := s.produce(20)
	c := s.open()
	some := c.must(5)
	c.settle(some...)
	c.close()
	rest := without(all, texts(some))
	s.wantLeft(len(rest))
	c = s.open()
	k.wantSame("fetched by the next producer", texts(c.must(len(rest))), rest, false)
	c.wantNothing()
}

func redeliversUnsettled(k *check) {
	s := k.source()
	all := s.produce(10)
	c := s.open()
	first := c.must(10)
	c.settle(first[:4]...)
	c.close()
	want := without(all, texts(first[:4]))
	c = s.open()
	again := c.try(len(want), k.Timeout)
	k.wantSame("delivered again", texts(again), want, false)
	for _, d := range again {
		if !d.Redelivered && !k.UnmarkedRedelivery {
			k.Errorf("%q is not marked as redelivered", d.text)
		}
	}
	c.wantNothing()
}

func closesCleanly(k *check) {
	s := k.source()
	unused := s.Open(k.TB)
	if d, ok := unused.(broadway.Describer); ok {
		d.Describe(broadway.Limits{MaxUnsettled: unsettled, MaxUnsettledBytes: plenty, Share: unsettled})
	}
	if err := unused.Close(); err != nil {
		k.Errorf("Close of a producer that was never connected: %v", err)
	}
	s.produce(5)
	c := s.open()
	left := c.must(2)
	c.close()
	c.awaitEnd(left)
	c.within("a second Close", func() {
		if err := c.producer.Close(); err != nil {
			k.Logf("a second Close: %v", err)
		}
	})
	c.settleStale(left)
}
