package kafka

import (
	"errors"
	"fmt"

	kafkago "github.com/segmentio/kafka-go"
)

// code is an error code of the protocol.
type code int16

// The codes that are handled by name.
const (
	codeNone                    code = 0
	codeOutOfRange              code = 1
	codeUnknownTopicOrPartition code = 3
	codeLeaderNotAvailable      code = 5
	codeNotLeader               code = 6
	codeRequestTimedOut         code = 7
	codeReplicaNotAvailable     code = 9
	codeMessageTooLarge         code = 10
	codeMetadataTooLarge        code = 12
	codeCoordinatorLoading      code = 14
	codeCoordinatorNotAvailable code = 15
	codeNotCoordinator          code = 16
	codeRecordListTooLarge      code = 18
	codeNotEnoughReplicas       code = 19
	codeNotEnoughAfterAppend    code = 20
	codeIllegalGeneration       code = 22
	codeUnknownMember           code = 25
	codeRebalanceInProgress     code = 27
	codeInvalidTimestamp        code = 32
	codeStorageError            code = 56
	codeFencedLeaderEpoch       code = 74
	codeUnknownLeaderEpoch      code = 75
	codeOffsetNotAvailable      code = 78
	codeFencedInstance          code = 82
	codeInvalidRecord           code = 87
	codeUnknownTopicID          code = 100
	codeInconsistentTopicID     code = 103
)

// Error is the code's name and description.
func (c code) Error() string {
	e := kafkago.Error(c)
	return fmt.Sprintf("[%d] %s", int(c), e.Title())
}

// codeError is nil for no error.
func codeError(c int16) error {
	if c == 0 {
		return nil
	}
	return code(c)
}

// moved says that the partition is elsewhere, or not anywhere yet: metadata is
// stale, and nothing is wrong.
func (c code) moved() bool {
	switch c {
	case codeLeaderNotAvailable, codeNotLeader, codeReplicaNotAvailable, codeStorageError,
		codeFencedLeaderEpoch, codeUnknownLeaderEpoch, codeOffsetNotAvailable, codeUnknownTopicID, codeInconsistentTopicID:
		return true
	}
	return false
}

// passing says that a write may succeed when it is tried again.
func (c code) passing() bool {
	switch c {
	case codeUnknownTopicOrPartition, codeRequestTimedOut, codeNotEnoughReplicas, codeNotEnoughAfterAppend:
		return true
	}
	return c.moved()
}

// tooLarge says that a batch is larger than its topic allows.
func (c code) tooLarge() bool { return c == codeMessageTooLarge || c == codeRecordListTooLarge }

// fenced says that the member is no longer who it thinks it is: what it owned
// may belong to somebody else by now.
func (c code) fenced() bool {
	switch c {
	case codeIllegalGeneration, codeUnknownMember, codeFencedInstance:
		return true
	}
	return false
}

// lostCoordinator says that the group is coordinated elsewhere, or not yet.
func (c code) lostCoordinator() bool {
	return c == codeCoordinatorNotAvailable || c == codeNotCoordinator || c == codeCoordinatorLoading
}

// codeOf is the protocol's code within err, codeNone when there is none.
func codeOf(err error) code {
	var c code
	if errors.As(err, &c) {
		return c
	}
	return codeNone
}

// loud says whether the n-th failure in a row is worth a line in the log: each
// power of two is.
func loud(n int) bool { return n&(n-1) == 0 }
