package kafka

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
