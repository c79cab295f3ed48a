package brokers_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/gobroadway/gobroadway/brokers"
)

func TestHostReturnsWhatWouldFailATest(t *testing.T) {
	host := brokers.NewHost("program", t.Logf)
	err := host.Do(func() {
		host.Fatalf("no %s", "Java")
		t.Error("Fatalf returned")
	})
	if err == nil || err.Error() != "no Java" {
		t.Fatalf("Do: %v, want what Fatalf was told", err)
	}
	if err := host.Do(func() {}); err != nil {
		t.Fatalf("Do returned the failure of an earlier one: %v", err)
	}
	if !host.Failed() {
		t.Error("Failed is false after a failure")
	}
	if err := host.Do(func() { host.Skip("-short") }); err == nil || !strings.Contains(err.Error(), "skipped") {
		t.Errorf("a skip is %v, want an error", err)
	}
}

func TestHostCleansUpInReverse(t *testing.T) {
	host := brokers.NewHost("program", t.Logf)
	var order []int
	host.Cleanup(func() { order = append(order, 1) })
	host.Cleanup(func() { order = append(order, 2); host.Fatal("two") })
	host.Cleanup(func() { order = append(order, 3) })
	err := host.Close()
	if !slices.Equal(order, []int{3, 2, 1}) {
		t.Errorf("cleanups ran as %v", order)
	}
	if err == nil || err.Error() != "two" {
		t.Errorf("Close: %v, want the failure of a cleanup", err)
	}
	if err := host.Close(); err != nil || len(order) != 3 {
		t.Errorf("a second Close: %v, and cleanups %v", err, order)
	}
}
