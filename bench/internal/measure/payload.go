package measure

import "encoding/binary"

// Write makes message i (from 0): its number at both ends and the rest filled, so that all of it is written.
func Write(payload []byte, i int) {
	for at := 0; at+8 <= len(payload); at += 8 {
		binary.LittleEndian.PutUint64(payload[at:], uint64(i)+1)
	}
}

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
		different |= binary.LittleEndian.Uint64(payload[at:]) ^ first
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
