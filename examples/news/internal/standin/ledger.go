package standin

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"sync"
)

// Effect is one publishing that really took place.
type Effect struct {
	Platform string
	// Post is the id of the post that was published, found by the source address
	// in what was published; empty if that names no post of the corpus.
	Post string
	// Key is the idempotency key that came with it.
	Key string
	// RemoteID is what the platform calls it.
	RemoteID string
}

// Counts are what the stand-ins saw besides effects.
type Counts struct {
	// Calls are requests to the posts API, answered or not.
	Calls int
	// Limited are those of them that were answered 429.
	Limited int
	// Unavailable are those of them that were answered 5xx.
	Unavailable int
	// Attempts are requests to each platform, by name.
	Attempts map[string]int
	// Replays are requests to each platform that carried the key of an earlier
	// effect, and had none.
	Replays map[string]int
	// Faults are requests to each platform that went wrong on purpose.
	Faults map[string]int
}

// Ledger is the stand-ins' own account of what happened. With a file it
// survives the process: each effect is one appended line, written before its
// caller can learn of it, so that a killed process forgets nothing that its
// peers rely on.
type Ledger struct {
	file *os.File // nil: memory only

	mu      sync.Mutex // protects following fields
	counts  Counts
	served  map[string]bool
	keys    map[string]string // platform and key to remote id
	effects []Effect
}

// line is one line of the file.
type line struct {
	Kind   string   `json:"kind"` // "page" or "effect"
	IDs    []string `json:"ids,omitempty"`
	Effect *Effect  `json:"effect,omitempty"`
}

// OpenLedger reads the ledger at path and appends to it. An empty path keeps it
// in memory. A last line that a killed process left unfinished is cut off.
func OpenLedger(path string) (*Ledger, error) {
	l := &Ledger{
		counts: Counts{Attempts: map[string]int{}, Replays: map[string]int{}, Faults: map[string]int{}},
		served: map[string]bool{}, keys: map[string]string{},
	}
	if path == "" {
		return l, nil
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("standin: ledger: %w", err)
	}
	if err := l.load(file); err != nil {
		return nil, errors.Join(fmt.Errorf("standin: ledger %s: %w", path, err), file.Close())
	}
	l.file = file
	return l, nil
}

func (l *Ledger) load(file *os.File) error {
	data, err := io.ReadAll(file)
	if err != nil {
		return err
	}
	whole := bytes.LastIndexByte(data, '\n') + 1
	if whole < len(data) {
		if err := file.Truncate(int64(whole)); err != nil {
			return err
		}
	}
	for raw := range bytes.Lines(data[:whole]) {
		var e line
		if err := json.Unmarshal(raw, &e); err != nil {
			return err
		}
		l.apply(e)
	}
	return nil
}

// apply enters e. The caller holds mu, or is alone.
func (l *Ledger) apply(e line) {
	for _, id := range e.IDs {
		l.served[id] = true
	}
	if e.Effect != nil {
		l.effects = append(l.effects, *e.Effect)
		if e.Effect.Key != "" {
			l.keys[e.Effect.Platform+"\x00"+e.Effect.Key] = e.Effect.RemoteID
		}
	}
}

// write appends e to the file in one write, which O_APPEND makes whole.
func (l *Ledger) write(e line) error {
	if l.file == nil {
		return nil
	}
	raw, err := json.Marshal(e)
	if err != nil {
		return err
	}
	_, err = l.file.Write(append(raw, '\n'))
	return err
}

// page enters posts that the API has handed out.
func (l *Ledger) page(ids []string) error {
	e := line{Kind: "page", IDs: ids}
	if err := l.write(e); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.apply(e)
	return nil
}

// call counts one request to the posts API and says which it is, from 1.
func (l *Ledger) call() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counts.Calls++
	return l.counts.Calls
}

func (l *Ledger) count(f func(*Counts)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f(&l.counts)
}

// effect enters a publishing, unless its key had one before: then fresh is
// false and the earlier remote id is returned. An empty key never repeats.
func (l *Ledger) effect(platform, post, key string) (remote string, fresh bool, err error) {
	e := Effect{Platform: platform, Post: post, Key: key}
	if remote, fresh = l.claim(&e); !fresh {
		return remote, false, nil
	}
	return e.RemoteID, true, l.write(line{Kind: "effect", Effect: &e})
}

func (l *Ledger) claim(e *Effect) (remote string, fresh bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if earlier, ok := l.keys[e.Platform+"\x00"+e.Key]; ok && e.Key != "" {
		l.counts.Replays[e.Platform]++
		return earlier, false
	}
	e.RemoteID = strconv.Itoa(len(l.effects) + 1)
	l.apply(line{Effect: e})
	return e.RemoteID, true
}

// Served lists the distinct posts that the API has handed out, oldest first.
func (l *Ledger) Served() []string {
	l.mu.Lock()
	ids := make([]string, 0, len(l.served))
	for id := range l.served {
		ids = append(ids, id)
	}
	l.mu.Unlock()
	slices.SortFunc(ids, func(a, b string) int { return compareIDs(a, b) })
	return ids
}

// Effects lists all publishings that took place.
func (l *Ledger) Effects() []Effect {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.effects)
}

// Counts returns a copy of the counters, which begin anew with each process.
func (l *Ledger) Counts() Counts {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.counts
	c.Attempts, c.Replays, c.Faults = clone(c.Attempts), clone(c.Replays), clone(c.Faults)
	return c
}

func clone(m map[string]int) map[string]int {
	out := make(map[string]int, len(m))
	for k, v := range m {
		out[k] = v
	}
	return out
}

// Close closes the file.
func (l *Ledger) Close() error {
	if l.file == nil {
		return nil
	}
	return l.file.Close()
}
