// Package load puts messages into brokers and takes out what is left, with clients that share nothing with the framework under
// test, and writes down what it did.
package load

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// Defaults of a load.
const (
	Keys     = 10_000
	BodySize = 256
)

// ID is the id of a producer's message.
func ID(run string, producer, seq int) string { return fmt.Sprintf("%s-%d-%d", run, producer, seq) }

// Body is a message of size bytes that names itself: a line with id, key and position within the key, and padding that differs from message to
// message.
func Body(id, key string, keySeq int64, size int) []byte {
	body := make([]byte, 0, max(size, 64))
	body = append(body, id...)
	body = append(body, ' ')
	body = append(body, key...)
	body = append(body, ' ')
	body = strconv.AppendInt(body, keySeq, 10)
	body = append(body, '\n')
	x := uint64(14695981039346656037) // FNV-1a of the line, then a multiplicative congruential stream
	for _, c := range body {
		x = (x ^ uint64(c)) * 1099511628211
	}
	for len(body) < size {
		x = x*6364136223846793005 + 1442695040888963407
		body = append(body, ' '+byte(x>>57)%95)
	}
	return body
}

// Parse reads what a body says of itself.
func Parse(body []byte) (id, key string, keySeq int64, err error) {
	line, _, found := bytes.Cut(body, []byte{'\n'})
	fields := strings.Split(string(line), " ")
	if !found || len(fields) != 3 {
		return "", "", 0, fmt.Errorf("a body of %d bytes does not name itself", len(body))
	}
	keySeq, err = strconv.ParseInt(fields[2], 10, 64)
	return fields[0], fields[1], keySeq, err
}

// Whole says whether a body is as [Body] made it.
func Whole(body []byte) bool {
	id, key, keySeq, err := Parse(body)
	return err == nil && bytes.Equal(body, Body(id, key, keySeq, len(body)))
}
