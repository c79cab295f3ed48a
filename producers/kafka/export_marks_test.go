package kafka

// Suspected says whether the metadata of a commit has marks of a crash.
func Suspected(metadata string) (bool, error) {
	n, err := decodeNote(metadata)
	return err == nil && n.marks.flags()&flagSuspect != 0, err
}

// Tried is the metadata of a commit, as if somebody else had died so often of the
// first message that is not committed; in a later leader epoch, if later is not 0.
func Tried(metadata string, attempts, later int32) string {
	n, err := decodeNote(metadata)
	if err != nil {
		panic(err)
	}
	n.by.id++
	n.spans = nil
	n.marks = marks{starts: 2, goal: n.base + 1000, until: n.base + 1, trial: n.base, attempt: attempts, running: true}
	n.epoch = max(n.epoch, 0) + later
	tried, _ := n.encode(mostNote)
	return tried
}
