package kafka

import (
	"context"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"strconv"
	"strings"

	"github.com/segmentio/kafka-go/sasl"
)

const (
	// minScramIterations is the least that RFC 7677 and Kafka allow; fewer would
	// make a stolen exchange cheap to attack.
	minScramIterations = 4096
	// maxScramIterations bounds the work that a broker can ask of a client.
	maxScramIterations = 1 << 20
)

// scram is the client's side of RFC 5802, without channel binding.
type scram struct {
	newHash  func() hash.Hash
	password Secret
	nonce    string
	first    string // client-first-message-bare
	verify   []byte // the server's signature, once the proof is sent
}

func startScram(mechanism Mechanism, c Credentials) (sasl.StateMachine, []byte, error) {
	return newScram(mechanism, c, rand.Text())
}

func newScram(mechanism Mechanism, c Credentials, nonce string) (*scram, []byte, error) {
	if c.Username == "" {
		return nil, nil, errors.New("kafka: credentials without a Username")
	}
	s := &scram{newHash: sha256.New, password: c.Password, nonce: nonce}
	if mechanism == ScramSHA512 {
		s.newHash = sha512.New
	}
	name := strings.NewReplacer("=", "=3D", ",", "=2C").Replace(c.Username)
	s.first = "n=" + name + ",r=" + nonce
	return s, []byte("n,," + s.first), nil
}

// Next answers the server's challenge with the proof, and then checks that the
// server knows the password too.
func (s *scram) Next(_ context.Context, challenge []byte) (bool, []byte, error) {
	if s.verify == nil {
		final, err := s.prove(string(challenge))
		return false, final, err
	}
	fields := scramFields(string(challenge))
	if reason, ok := fields["e"]; ok {
		return false, nil, fmt.Errorf("kafka: the broker refused the authentication: %.100q", reason)
	}
	got, err := base64.StdEncoding.DecodeString(fields["v"])
	if err != nil || !hmac.Equal(got, s.verify) {
		return false, nil, errors.New("kafka: the broker's SCRAM signature is wrong")
	}
	return true, nil, nil
}

// prove computes the client-final-message and the signature to expect.
func (s *scram) prove(serverFirst string) ([]byte, error) {
	fields := scramFields(serverFirst)
	nonce := fields["r"]
	salt, saltErr := base64.StdEncoding.DecodeString(fields["s"])
	iterations, err := strconv.Atoi(fields["i"])
	switch {
	case !strings.HasPrefix(nonce, s.nonce) || len(nonce) == len(s.nonce):
		return nil, errors.New("kafka: the broker's SCRAM nonce does not continue ours")
	case saltErr != nil || len(salt) == 0:
		return nil, errors.New("kafka: the broker's SCRAM salt is malformed")
	case err != nil || iterations < minScramIterations || iterations > maxScramIterations:
		return nil, fmt.Errorf("kafka: the broker's SCRAM iteration count is not within %d to %d", minScramIterations, maxScramIterations)
	}
	salted, err := pbkdf2.Key(s.newHash, string(s.password), salt, iterations, s.newHash().Size())
	if err != nil {
		return nil, fmt.Errorf("kafka: SCRAM: %w", err)
	}
	clientKey := s.mac(salted, "Client Key")
	stored := s.newHash()
	stored.Write(clientKey)

	bare := "c=biws,r=" + nonce
	auth := s.first + "," + serverFirst + "," + bare
	proof := s.mac(stored.Sum(nil), auth)
	for i := range proof {
		proof[i] ^= clientKey[i]
	}
	s.verify = s.mac(s.mac(salted, "Server Key"), auth)
	return []byte(bare + ",p=" + base64.StdEncoding.EncodeToString(proof)), nil
}

func (s *scram) mac(key []byte, text string) []byte {
	m := hmac.New(s.newHash, key)
	m.Write([]byte(text))
	return m.Sum(nil)
}

// scramFields reads "a=1,b=2". A value may hold '='.
func scramFields(message string) map[string]string {
	fields := map[string]string{}
	for field := range strings.SplitSeq(message, ",") {
		if name, value, ok := strings.Cut(field, "="); ok {
			fields[name] = value
		}
	}
	return fields
}
