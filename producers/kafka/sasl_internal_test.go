package kafka

import (
	"context"
	"errors"
	"strings"
	"testing"
)

// The exchange of RFC 7677, section 3.
func TestScramSpeaksTheExampleOfItsRFC(t *testing.T) {
	s, first, err := newScram(ScramSHA256, Credentials{Username: "user", Password: "pencil"}, "rOprNGfwEbeRWgbNEkqO")
	if err != nil || string(first) != "n,,n=user,r=rOprNGfwEbeRWgbNEkqO" {
		t.Fatalf("first %q, %v", first, err)
	}
	const serverFirst = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
	done, final, err := s.Next(context.Background(), []byte(serverFirst))
	const want = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
	if done || err != nil || string(final) != want {
		t.Fatalf("final %q, %v, %v", final, done, err)
	}
	done, _, err = s.Next(context.Background(), []byte("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="))
	if !done || err != nil {
		t.Fatalf("end %v, %v", done, err)
	}
}

func TestScramRefusesServersThatDoNotKnowThePassword(t *testing.T) {
	const nonce = "abc"
	const good = "r=abcdef,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
	for name, messages := range map[string][]string{
		"another nonce":       {"r=xyz,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"},
		"the nonce unchanged": {"r=abc,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"},
		"no salt":             {"r=abcdef,i=4096"},
		"one iteration":       {"r=abcdef,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=1"},
		"endless iterations":  {"r=abcdef,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=99999999"},
		"nothing":             {""},
		"a wrong signature":   {good, "v=AAAA"},
		"no signature":        {good, ""},
		"an error":            {good, "e=invalid-proof"},
	} {
		t.Run(name, func(t *testing.T) {
			s, _, err := newScram(ScramSHA512, Credentials{Username: "u", Password: "hunter2"}, nonce)
			for _, m := range messages {
				if err != nil {
					t.Fatal(err)
				}
				_, _, err = s.Next(context.Background(), []byte(m))
			}
			if err == nil || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("error %v, want one without the password", err)
			}
		})
	}
}

func TestScramEscapesUsernames(t *testing.T) {
	_, first, err := newScram(ScramSHA256, Credentials{Username: "a=b,c"}, "n")
	if err != nil || string(first) != "n,,n=a=3Db=2Cc,r=n" {
		t.Errorf("first %q, %v", first, err)
	}
}

func TestCredentialsAreAskedForAtEachDial(t *testing.T) {
	n := 0
	m := saslMechanism(&SASL{Mechanism: Plain, Credentials: func(context.Context) (Credentials, error) {
		n++
		if n == 3 {
			return Credentials{}, errors.New("the vault is closed")
		}
		return Credentials{Username: "u", Password: Secret(strings.Repeat("p", n))}, nil
	}})
	for _, want := range []string{"\x00u\x00p", "\x00u\x00pp"} {
		if _, first, err := m.Start(context.Background()); err != nil || string(first) != want {
			t.Errorf("first %q, %v; want %q", first, err, want)
		}
	}
	if _, _, err := m.Start(context.Background()); err == nil || !strings.Contains(err.Error(), "vault") {
		t.Errorf("error %v, want the provider's", err)
	}
}

func TestBearerTokens(t *testing.T) {
	s, first, err := startBearer(Credentials{Token: "tok", Extensions: map[string]string{"b": "2", "a": "1"}})
	if err != nil || string(first) != "n,,\x01auth=Bearer tok\x01a=1\x01b=2\x01\x01" {
		t.Fatalf("first %q, %v", first, err)
	}
	if done, _, err := s.Next(context.Background(), nil); !done || err != nil {
		t.Errorf("an empty challenge: %v, %v", done, err)
	}
	done, answer, err := s.Next(context.Background(), []byte(`{"status":"invalid_token"}`))
	if done || err != nil || string(answer) != "\x01" {
		t.Errorf("a refusal is answered with %q, %v, %v", answer, done, err)
	}
	if _, _, err = s.Next(context.Background(), nil); err == nil || !strings.Contains(err.Error(), "invalid_token") {
		t.Errorf("error %v, want the broker's reason", err)
	}
	for _, c := range []Credentials{{}, {Token: "a\x01b"}, {Token: "t", Extensions: map[string]string{"auth": "x"}}, {Token: "t", Extensions: map[string]string{"a": "\x01"}}} {
		if _, _, err := startBearer(c); err == nil {
			t.Errorf("%v is accepted", c.Extensions)
		}
	}
}
