package broadwaytest

import (
	"testing"
	"testing/synctest"
)

// TestProducer holds a kind of producer against the contract of
// [broadway.Producer] and its optional interfaces: one subtest for each
// [Property], each with a fresh source.
func TestProducer(t *testing.T, f Features, newSource func(testing.TB) Source) {
	t.Helper()
	run(t, f, newSource, ProducerProperties(f))
}

// TestAcknowledger holds the acknowledger that a kind of producer brings against
// the contracts of [broadway.Acknowledger] and [broadway.Releaser], as
// TestProducer does.
func TestAcknowledger(t *testing.T, f Features, newSource func(testing.TB) Source) {
	t.Helper()
	run(t, f, newSource, AcknowledgerProperties(f))
}

func run(t *testing.T, f Features, newSource func(testing.TB) Source, properties []Property) {
	t.Helper()
	for _, p := range properties {
		t.Run(p.Name, func(t *testing.T) {
			t.Log(p.Promise)
			if f.Virtual {
				synctest.Test(t, func(t *testing.T) { p.Check(t, f, newSource) })
				return
			}
			p.Check(t, f, newSource)
		})
	}
}

// ProducerProperties are the promises that TestProducer holds a producer to.
func ProducerProperties(f Features) []Property {
	all := demandProperties()
	all = append(all, lifeProperties()...)
	all = append(all, settleProperties()...)
	all = append(all, contentProperties(f)...)
	all = append(all, crashProperties()...)
	all = append(all, Property{
		"FailureActions", "each action that the producer says it can take has its effect", failureActions,
	})
	if f.Finite {
		all = append(all, Property{
			"EndsWithEOF", "a finite source ends with io.EOF, once all has been fetched", endsWithEOF,
		})
	}
	return all
}
