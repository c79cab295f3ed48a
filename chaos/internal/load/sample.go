package load

import (
	"context"
	"errors"
	"time"

	"github.com/gobroadway/gobroadway/chaos/internal/ledger"
	"github.com/gobroadway/gobroadway/chaos/internal/rig"
)

// SampleEvery is the time between two samples.
const SampleEvery = 50 * time.Millisecond

// Sample asks the broker where a group stands, past the proxy, until ctx ends, and writes down what has changed. What cannot be asked, since the broker is
// down, is left out.
func Sample(ctx context.Context, kafka *rig.Kafka, group, topic, dir string) (err error) {
	writer, err := ledger.Create(dir, ledger.KindOffsets)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, writer.Close()) }()
	last := map[int]rig.Position{}
	tick := time.NewTicker(SampleEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		positions, err := kafka.Positions(ctx, group, topic)
		at := ledger.Now()
		if err != nil {
			continue
		}
		for _, now := range positions {
			if last[now.Partition] == now {
				continue
			}
			last[now.Partition] = now
			err := writer.Append(ledger.Sample{
				Source: topic, Partition: int32(now.Partition), Group: group, Committed: now.Committed, Start: now.Start, End: now.End, At: at,
			})
			if err != nil {
				return err
			}
		}
	}
}
