package kafka

import "github.com/gobroadway/gobroadway/acknowledgers"

// Kill ends all that p has to do with its brokers, as the death of its process would.
func (p *Producer) Kill() { p.wire.network.shut() }

// Told is how many offsets above a commit have settled, as its metadata says.
func Told(metadata string) (settled int64, err error) {
	n, err := decodeNote(metadata)
	if err != nil {
		return 0, err
	}
	for _, s := range n.spans {
		settled += s.Len()
	}
	return settled, nil
}

// WrittenIn is the generation of a group in which the metadata of a commit was
// written.
func WrittenIn(metadata string) (generation int32, err error) {
	n, err := decodeNote(metadata)
	if err != nil {
		return 0, err
	}
	return n.by.generation, nil
}

// Tell is the metadata of a commit at base that lists as settled, under a leader epoch,
// the spans of which the ends are given.
func Tell(topic [16]byte, base int64, epoch int32, ends ...int64) string {
	n := note{topic: topic, base: base, epoch: epoch}
	for i := 0; i < len(ends); i += 2 {
		n.spans = append(n.spans, acknowledgers.Span{First: ends[i], End: ends[i+1]})
	}
	text, _ := n.encode(mostNote)
	return text
}

// Expanded is what decompressed batches take. It must not be called while Fetch runs.
func (p *Producer) Expanded() (sum int64) {
	if s, _ := p.current(); s != nil {
		for _, part := range s.parts {
			sum += part.expanded()
		}
	}
	return sum
}
