package worker

import (
	"context"
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/chaos/internal/ledger"
)

func TestAFailPointIsReachedOnce(t *testing.T) {
	tests := []struct {
		name    string
		point   FailPoint
		leaving bool
		want    int // the call that is the one, 0 for none
	}{
		{"never", FailPoint{}, false, 0},
		{"another step", FailPoint{At: BeforeSink, N: 1}, false, 0},
		{"without a number", FailPoint{At: AfterSink}, false, 1},
		{"third", FailPoint{At: AfterSink, N: 3}, false, 3},
		{"not yet draining", FailPoint{At: AfterSink, N: 1, Draining: true}, false, 0},
		{"draining", FailPoint{At: AfterSink, N: 2, Draining: true}, true, 2},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			point := &failPoint{FailPoint: test.point}
			point.leaving.Store(test.leaving)
			for i := 1; i <= 10; i++ {
				if got := point.turn(AfterSink); got != (i == test.want) {
					t.Errorf("call %d: %v", i, got)
				}
			}
		})
	}
}

func TestFaultsStrikeByIDAndSoOften(t *testing.T) {
	f := &faults{struck: map[string]int{}, list: []Fault{
		{Kind: Error, IDs: []string{"a"}, Times: 2}, {Kind: Reject, IDs: []string{"b"}}, {Kind: Error, IDs: []string{"c"}, Reporter: true},
		{Kind: Half, IDs: []string{"d"}, Reporter: true, Times: 1}, {Kind: Down, IDs: []string{"e"}},
	}}
	strike := func(id string, reporter bool) error { return f.strike(context.Background(), id, reporter) }
	for i := range 4 {
		if err := strike("a", false); (err != nil) != (i < 2) {
			t.Errorf("time %d: %v", i+1, err)
		}
	}
	for id, advised := range map[string]error{"b": broadway.Reject(errStruck), "e": broadway.Unavailable(errStruck)} {
		if got := strike(id, false); !reflect.DeepEqual(got, advised) {
			t.Errorf("%s: %v", id, got)
		}
	}
	if strike("c", false) != nil || !errors.Is(strike("c", true), errStruck) {
		t.Error("a reporter's fault strikes elsewhere")
	}
	batch := []ledger.Observation{{ID: "x"}, {ID: "d"}}
	if first, second := f.batch(batch), f.batch(batch); first != Half || second != "" {
		t.Errorf("the batch is struck by %q and then %q", first, second)
	}
	if strike("d", true) != nil {
		t.Error("a batch's fault strikes a member")
	}
}

func TestAShareOfIDsIsStruck(t *testing.T) {
	fault, n := Fault{Every: 10, Rest: 3}, 0
	for i := range 10_000 {
		if fault.Strikes(string(rune('a'+i%26)) + time.Duration(i).String()) {
			n++
		}
	}
	if n < 800 || n > 1200 {
		t.Errorf("%d of 10,000 instead of a tenth", n)
	}
	if (Fault{}).Strikes("anything") {
		t.Error("a fault for nobody strikes")
	}
}
