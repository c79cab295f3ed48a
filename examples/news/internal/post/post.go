// Package post holds what the stages hand to each other: a post of a social
// network, as part A downloaded it and part B republishes it.
package post

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Post is one social post. Everything in it was written by strangers: HTML is
// as hostile as the network lets it be until package render has sanitised it.
type Post struct {
	// ID is the network's own: decimal digits, growing with time.
	ID string `json:"id"`
	// URL is the post's permanent address, the "source" of what is republished.
	URL string `json:"url"`
	// Account is the author's address (user@host), Author the name to show.
	Account string `json:"account"`
	Author  string `json:"author"`
	// CreatedAt is when the post was written, in UTC.
	CreatedAt time.Time `json:"created_at"`
	// Language is a BCP 47 tag as the author chose it, or empty.
	Language string `json:"language,omitempty"`
	// Tags are the hashtags in lower case, without '#', in the post's order.
	Tags []string `json:"tags,omitempty"`
	// Warning is a content warning, plain text, mostly empty.
	Warning string `json:"warning,omitempty"`
	// HTML is the content as received: untrusted.
	HTML string `json:"html"`
}

// maxIDLen is generous: 64-bit ids have at most 20 digits.
const maxIDLen = 20

// Encode is the post as it travels through a queue.
func (p Post) Encode() ([]byte, error) { return json.Marshal(p) }

// Decode reads what Encode wrote. It refuses a post whose id could not safely
// be a file name or a key, so later stages need not ask again.
func Decode(payload []byte) (Post, error) {
	var p Post
	if err := json.Unmarshal(payload, &p); err != nil {
		return Post{}, fmt.Errorf("post: %w", err)
	}
	if err := CheckID(p.ID); err != nil {
		return Post{}, err
	}
	return p, nil
}

// ErrID is wrapped by the errors of CheckID.
var ErrID = errors.New("post: id is not a number")

// CheckID returns nil for 1 to 20 decimal digits.
func CheckID(id string) error {
	if id == "" || len(id) > maxIDLen || strings.Trim(id, "0123456789") != "" {
		return fmt.Errorf("%w: %.40q", ErrID, id)
	}
	return nil
}

// CompareIDs orders ids by their number: a shorter id is an older one.
func CompareIDs(a, b string) int {
	if len(a) != len(b) {
		return len(a) - len(b)
	}
	return strings.Compare(a, b)
}
