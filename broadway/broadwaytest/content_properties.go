package broadwaytest

import (
	"fmt"
	"strings"

	"github.com/gobroadway/gobroadway/broadway"
)

func contentProperties(f Features) []Property {
	properties := []Property{
		{"OrderWithinRef", "messages of one reference stand together, in order, with rising positions", orderWithinRef},
		{"MetadataIsPresent", "each message has metadata, an ID of its own and, where it can be copied, an origin", metadataIsPresent},
		{"PayloadsStayValid", "a payload does not change before its message has settled", payloadsStayValid},
	}
	if !f.UnstableIDs {
		properties = append(properties, Property{
			"IDsAreStable", "a message that is delivered again has the same ID", idsAreStable,
		})
	}
	return properties
}

func orderWithinRef(k *check) {
	s := k.source()
	all := s.produce(50)
	c := s.open()
	var got []delivery
	for len(got) < len(all) {
		f := c.once(broadway.Demand{Messages: 7, Bytes: plenty})
		if f.err != nil {
			k.Fatalf("Fetch: %v, after %d messages", f.err, len(got))
		}
		c.wantRuns(f.deliveries)
		got = append(got, f.deliveries...)
	}
	last := make(map[*broadway.AckRef]delivery)
	for _, d := range got {
		before, ok := last[d.Ref()]
		if ok && d.Seq() <= before.Seq() {
			k.Fatalf("position %d came after %d", d.Seq(), before.Seq())
		}
		if ok && !k.Unordered && strings.Compare(d.text, before.text) <= 0 {
			k.Fatalf("%q came after %q", d.text, before.text)
		}
		last[d.Ref()] = d
	}
}

// wantRuns wants the messages of each reference to stand together.
func (c *client) wantRuns(ds []delivery) {
	c.Helper()
	seen := make(map[*broadway.AckRef]bool)
	for i, d := range ds {
		if i > 0 && ds[i-1].Ref() == d.Ref() {
			continue
		}
		if seen[d.Ref()] {
			c.Fatalf("the messages of a reference do not stand together in a Fetch")
		}
		seen[d.Ref()] = true
	}
}

func metadataIsPresent(k *check) {
	s := k.source()
	s.produce(10)
	c := s.open()
	ids := make(map[string]string)
	for _, d := range c.must(10) {
		if d.Metadata == nil {
			k.Fatalf("%q has no metadata", d.text)
		}
		if id, ok := d.Metadata.(broadway.Identifier); !ok || id.MessageID() == "" {
			k.Fatalf("the metadata of %q, a %T, gives no ID", d.text, d.Metadata)
		}
		if other, ok := ids[d.ID()]; ok {
			k.Fatalf("%q and %q have the same ID, %s", d.text, other, d.ID())
		}
		ids[d.ID()] = d.text
		if e, ok := d.Metadata.(broadway.Enveloped); ok && e.MessageOrigin() == "" {
			k.Fatalf("the metadata of %q has no origin", d.text)
		}
		if d.Attempt < 1 {
			k.Fatalf("the attempt of %q is %d: was the message made by Init?", d.text, d.Attempt)
		}
		if d.Redelivered {
			k.Fatalf("%q is marked as redelivered at its first delivery", d.text)
		}
	}
}

func idsAreStable(k *check) {
	s := k.source()
	s.produce(5)
	c := s.open()
	ids := make(map[string]string)
	for _, d := range c.must(5) {
		ids[d.text] = d.ID()
	}
	c.close()
	c = s.open()
	for _, d := range c.try(5, k.Timeout) {
		_, identified := d.Metadata.(broadway.Identifier) // if not, MetadataIsPresent finds it
		if identified && d.ID() != ids[d.text] {
			k.Errorf("the ID of %q was %s and is %s", d.text, ids[d.text], d.ID())
		}
	}
}

func payloadsStayValid(k *check) {
	s := k.source()
	s.produceSized(30, 500)
	c := s.open()
	var held []delivery
	for len(held) < 30 {
		held = append(held, c.must(min(1+len(held)%4, 30-len(held)))...)
		if err := unchanged(held); err != nil {
			k.Fatalf("after %d messages: %v", len(held), err)
		}
	}
	for len(held) > 0 {
		n := len(held) / 2
		c.settle(held[n:]...)
		held = held[:n]
		if err := unchanged(held); err != nil {
			k.Fatalf("with %d messages unsettled: %v", len(held), err)
		}
	}
}

func unchanged(ds []delivery) error {
	for _, d := range ds {
		if string(d.Payload) != d.text {
			return fmt.Errorf("the payload of an unsettled message changed from %.20q to %.20q", d.text, d.Payload)
		}
	}
	return nil
}
