package acknowledgers

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"

	"github.com/gobroadway/gobroadway/broadway"
)

// Headers of a reference: a dead letter that stands for a message that was too
// large to be published, in addition to those of every dead letter. HeaderID
// says which message it is.
const (
	// HeaderSize is the size of the original payload in bytes, in decimal, "-1"
	// when it is not known. References have it, other dead letters have not.
	HeaderSize = "x-broadway-size"
	// HeaderSHA256 is the SHA-256 of the original payload, in hexadecimal; empty
	// when it is not known.
	HeaderSHA256 = "x-broadway-sha256"
	// HeaderSpill is where DeadLetters.Spill has put the original, if it has.
	HeaderSpill = "x-broadway-spill"
)

const (
	// MaxReferencePayload is how many bytes of the original payload a reference
	// has at most: the first ones.
	MaxReferencePayload = 1024
	// MaxReferenceKey is the largest key, in bytes, that a reference keeps. In
	// place of a larger one it has none.
	MaxReferenceKey = 255
)

// IsReference says whether headers are those of a reference.
func IsReference(headers []broadway.Header) bool {
	_, found := lookUp(headers, HeaderSize)
	return found
}

// refer makes r, which is the dead letter of m, a reference with the headers
// added, and nothing that the source alone understands.
func refer(r broadway.Record, m *broadway.Message, added []broadway.Header, where string) broadway.Record {
	size, sum, abridged := int64(0), []byte(nil), false
	if a, ok := m.Metadata.(broadway.Abridged); ok {
		size, sum, abridged = a.MessageOriginal()
	}
	if !abridged {
		digest := sha256.Sum256(m.Payload)
		size, sum = int64(len(m.Payload)), digest[:]
	}
	if len(r.Key) > MaxReferenceKey {
		r.Key = nil
	}
	if len(r.Payload) > MaxReferencePayload {
		r.Payload = r.Payload[:MaxReferencePayload:MaxReferencePayload]
	}
	r.Source = nil
	r.Headers = append(added,
		header(HeaderSize, strconv.FormatInt(size, 10), maxName),
		header(HeaderSHA256, hex.EncodeToString(sum), maxName))
	if where != "" {
		r.Headers = append(r.Headers, header(HeaderSpill, where, maxName))
	}
	return r
}

// isAbridged says whether m has only a part of its payload.
func isAbridged(m *broadway.Message) bool {
	a, ok := m.Metadata.(broadway.Abridged)
	if !ok {
		return false
	}
	_, _, abridged := a.MessageOriginal()
	return abridged
}
