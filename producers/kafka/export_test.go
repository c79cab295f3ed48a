package kafka

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
