package measure

import "encoding/binary"

// Write makes message i (from 0): its number, again and again, but every fourth word is the number scattered, which no codec finds again:
// batches of such messages compress by 3.4 (lz4) to 5.2 (zstd), as events in JSON do.
func Write(payload []byte, i int) {
	number := uint64(i) + 1
	for at := 0; at+8 <= len(payload); at += 8 {
		binary.LittleEndian.PutUint64(payload[at:], word(number, at))
	}
}

// word is the one at a place of a message.
func word(number uint64, at int) uint64 {
	if at%32 == 24 {
		return number * (golden + 2*uint64(at)) // odd, so that only 0 gives 0
	}
	return number
}

// golden is 2^64 divided by the golden ratio, as Knuth's multiplicative hashing has it.
const golden = 0x9e3779b97f4a7c15

// Read reads all of a message, and returns the number in it, or 0 when it is not whole.
func Read(payload []byte) uint64 { return ReadOf(payload, Payload) }

// ReadOf does so for messages of size bytes. What is left of a size that is no multiple of 8 is not looked at.
func ReadOf(payload []byte, size int) uint64 {
	if len(payload) != size || size < 8 {
		return 0
	}
	first := binary.LittleEndian.Uint64(payload)
	different := uint64(0)
	for at := 8; at+8 <= len(payload); at += 8 {
		different |= binary.LittleEndian.Uint64(payload[at:]) ^ word(first, at)
	}
	if different != 0 {
		return 0
	}
	return first
}

// Slab makes n messages in one array, from message first on.
func Slab(first, n int) []byte { return SlabOf(first, n, Payload) }

// SlabOf does so for messages of size bytes.
func SlabOf(first, n, size int) []byte {
	slab := make([]byte, n*size)
	for i := range n {
		Write(slab[i*size:(i+1)*size], first+i)
	}
	return slab
}

// Number is what Read returned of a whole message.
func Number(payload []byte) uint64 { return binary.LittleEndian.Uint64(payload) }
