package broadwaytest_test

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/gobroadway/gobroadway/broadway/broadwaytest"
)

var (
	features      = broadwaytest.Features{Virtual: true, Finite: true}
	producers     = broadwaytest.ProducerProperties(features)
	acknowledgers = broadwaytest.AcknowledgerProperties(features)
)

func sourceWith(d defect) func(testing.TB) broadwaytest.Source {
	return func(testing.TB) broadwaytest.Source { return newBroker(d) }
}

func TestNaiveProducerWithoutDefectPasses(t *testing.T) {
	broadwaytest.TestProducer(t, features, sourceWith(none))
	broadwaytest.TestAcknowledger(t, features, sourceWith(none))
}

// recorder is a testing.TB that keeps failures to itself.
type recorder struct {
	testing.TB

	mu       sync.Mutex // protects following fields
	failures []string
	cleanups []func()
}

func (r *recorder) Helper()                      {}
func (r *recorder) Log(...any)                   {}
func (r *recorder) Logf(string, ...any)          {}
func (r *recorder) Cleanup(f func())             { r.cleanups = append(r.cleanups, f) }
func (r *recorder) Error(args ...any)            { r.fail(fmt.Sprint(args...)) }
func (r *recorder) Fatal(args ...any)            { r.fail(fmt.Sprint(args...)); runtime.Goexit() }
func (r *recorder) FailNow()                     { r.Fatal("FailNow") }
func (r *recorder) Failed() bool                 { return len(r.failures) > 0 }
func (r *recorder) Errorf(f string, args ...any) { r.fail(fmt.Sprintf(f, args...)) }
func (r *recorder) Fatalf(f string, args ...any) {
	r.fail(fmt.Sprintf(f, args...))
	runtime.Goexit()
}

func (r *recorder) fail(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failures = append(r.failures, text)
}

// failuresOf runs one property against a producer with a defect.
func failuresOf(t *testing.T, p broadwaytest.Property, d defect) (failures []string) {
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{TB: t}
		done := make(chan struct{})
		go func() {
			defer close(done)
			defer func() {
				for _, f := range slices.Backward(r.cleanups) {
					f()
				}
			}()
			p.Check(r, features, sourceWith(d))
		}()
		<-done
		failures = r.failures
	})
	return failures
}

// unpiped are defects over which no pipeline works: it finds them itself, or
// waits for ever, or hands changing payloads to its handlers.
var unpiped = []defect{
	returnsOverDemand, returnsOverBytes, claimsNothing, ignoresCancel, settlesAfterFetch, reusesPayloads,
}

// piped are the properties that run a pipeline.
var piped = []string{"FailureActions", "TakesBothOutcomes", "DrainLosesNothing", "AttemptsSurviveCrashes"}

// wantFailure runs a suite against a producer with a defect: exactly one property
// must fail, and say why.
func wantFailure(t *testing.T, suite []broadwaytest.Property, d defect, property, why string) {
	t.Helper()
	found := false
	for _, p := range suite {
		if slices.Contains(unpiped, d) && slices.Contains(piped, p.Name) {
			continue
		}
		failures := failuresOf(t, p, d)
		switch {
		case p.Name != property && len(failures) > 0:
			t.Errorf("a producer that %s fails %s, too: %s", d, p.Name, strings.Join(failures, "; "))
		case p.Name == property:
			found = true
			if !strings.Contains(strings.Join(failures, "; "), why) {
				t.Errorf("%s does not say %q of a producer that %s, but: %q", property, why, d, failures)
			}
		}
	}
	if !found {
		t.Errorf("there is no property %s", property)
	}
}

func TestFindsProducerThatReturnsOverDemand(t *testing.T) {
	wantFailure(t, producers, returnsOverDemand, "NeverOverDemand", "asked for")
}

func TestFindsProducerThatReturnsOverBytes(t *testing.T) {
	wantFailure(t, producers, returnsOverBytes, "NeverOverBytes", "a demand of 1 byte gave")
}

func TestFindsProducerThatFetchesAhead(t *testing.T) {
	wantFailure(t, producers, fetchesAhead, "NothingWithoutDemand", "handed out")
}

func TestFindsProducerThatClaimsNothing(t *testing.T) {
	wantFailure(t, producers, claimsNothing, "NothingWithoutDemand", "were claimed")
}

func TestFindsProducerThatReturnsWhenEmpty(t *testing.T) {
	wantFailure(t, producers, returnsWhenEmpty, "BlocksUntilThereIsOne", "Fetch of an empty source returned")
}

func TestFindsProducerThatIgnoresCancel(t *testing.T) {
	wantFailure(t, producers, ignoresCancel, "CancelReturns", "does not return when its context ends")
}

func TestFindsProducerThatLosesOnCancel(t *testing.T) {
	wantFailure(t, producers, losesOnCancel, "CancelLosesNothing", "did not come")
}

func TestFindsProducerThatKeepsWhatItPrefetched(t *testing.T) {
	wantFailure(t, producers, keepsOnDrain, "DrainHandsBack", "left")
}

func TestFindsProducerThatDoesNotRedeliver(t *testing.T) {
	wantFailure(t, producers, forgetsUnsettled, "RedeliversUnsettled", "did not come")
}

func TestFindsProducerThatLeavesItsReferencesOpen(t *testing.T) {
	wantFailure(t, producers, leavesReferences, "ClosesCleanly", "have not ended")
}

func TestFindsProducerThatSwallowsReleases(t *testing.T) {
	wantFailure(t, producers, swallowsRelease, "RedeliversReleased", "did not come")
}

func TestFindsProducerThatSettlesTwice(t *testing.T) {
	wantFailure(t, producers, settlesTwice, "SettlesOnce", "settles")
}

func TestFindsProducerThatSendsStaleSettles(t *testing.T) {
	wantFailure(t, producers, sendsStaleSettles, "StaleSettleIsNotSent", "did not come")
}

func TestFindsProducerThatReorders(t *testing.T) {
	wantFailure(t, producers, reorders, "OrderWithinRef", "came after")
}

func TestFindsProducerWithoutMetadata(t *testing.T) {
	wantFailure(t, producers, hasNoMetadata, "MetadataIsPresent", "has no metadata")
}

func TestFindsProducerThatReusesPayloads(t *testing.T) {
	wantFailure(t, producers, reusesPayloads, "PayloadsStayValid", "changed")
}

func TestFindsProducerThatRenamesWhatItRedelivers(t *testing.T) {
	wantFailure(t, producers, renamesRedelivered, "IDsAreStable", "the ID of")
}

func TestFindsProducerThatLeavesWhatIsRejected(t *testing.T) {
	wantFailure(t, producers, swallowsReject, "FailureActions", "left")
}

func TestFindsProducerThatGoesOnWithAStoppedPartition(t *testing.T) {
	wantFailure(t, producers, goesOnWhenStopped, "FailureActions", "stop_partition")
}

func TestFindsProducerThatNeverEnds(t *testing.T) {
	wantFailure(t, producers, neverEnds, "EndsWithEOF", "did not return")
}

func TestFindsProducerThatForgetsCrashes(t *testing.T) {
	wantFailure(t, producers, forgetsCrashes, "AttemptsSurviveCrashes", "died of a message")
}

func TestFindsProducerThatSuspectsAll(t *testing.T) {
	wantFailure(t, producers, suspectsAll, "AttemptsSurviveCrashes", "though it killed nobody")
}

func TestFindsProducerThatSettlesWhenNoFetchRuns(t *testing.T) {
	wantFailure(t, producers, settlesAfterFetch, "SettlesWhileFetchWaits", "does not return")
}

func TestFindsAcknowledgerThatSettlesUpToAPosition(t *testing.T) {
	wantFailure(t, acknowledgers, settlesPrefix, "SettlesOnlyWhatIsNamed", "left")
}

func TestFindsAcknowledgerThatFailsOnEmptyCalls(t *testing.T) {
	wantFailure(t, acknowledgers, failsEmptyCalls, "TakesEmptyCalls", "Ack of nothing")
}

func TestFindsAcknowledgerThatIgnoresFailedOfMixedCalls(t *testing.T) {
	wantFailure(t, acknowledgers, dropsFailed, "TakesBothOutcomes", "left")
}

func TestFindsAcknowledgerThatDropsCancelledSettles(t *testing.T) {
	wantFailure(t, acknowledgers, liesAboutCancelledCalls, "HeedsItsContext", "left")
}
