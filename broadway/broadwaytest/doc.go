// Package broadwaytest helps to test pipelines, and what pipelines are made of.
//
// For the tests of a program that uses broadway: [RunMessage] and [RunBatch]
// send messages through a Config and return what became of each; [Producer] is
// a source that is driven by hand; [AckRecorder], [ReportRecorder],
// [DeadLetterRecorder] and [ObserverRecorder] remember what they were told.
//
// For whoever writes a producer: [TestProducer] and [TestAcknowledger] are
// conformance suites. A suite gets a [Source], which lets it play the other
// side of the producer:
//
//	func TestConformance(t *testing.T) {
//		newSource := func(t testing.TB) broadwaytest.Source {
//			return &source{queue: broker(t).FreshQueue(t)}
//		}
//		features := broadwaytest.Features{UnstableIDs: true}
//		broadwaytest.TestProducer(t, features, newSource)
//		broadwaytest.TestAcknowledger(t, features, newSource)
//	}
//
// Each promise of the suites is a subtest with a name of its own. Features say
// what a kind of source cannot do; the zero value is the strictest suite.
// Goroutines left behind are found by themselves with Features.Virtual; suites
// on a real broker should be run under go.uber.org/goleak.
package broadwaytest
