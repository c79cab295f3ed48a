package acknowledgers_test

import (
	"fmt"

	"github.com/gobroadway/gobroadway/acknowledgers"
)

// A commit is the end of the longest settled prefix, over gaps too.
func ExampleOffsets() {
	o := acknowledgers.NewOffsets(10)
	o.Deliver(10, 3) // 10, 11 and 12
	o.Deliver(15, 2) // 15 and 16: compaction took what was between

	o.Settle(11, 2)
	fmt.Println(o.Next(), o.Above())
	o.Settle(10, 1)
	fmt.Println(o.Next(), o.Above())
	// Output:
	// 10 [{11 13}]
	// 15 []
}
