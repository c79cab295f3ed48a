package rabbitmq

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gobroadway/gobroadway/broadway"
)

// maxShortString is how many bytes the protocol allows for names, routing keys,
// header keys and most properties.
const maxShortString = 255

// maxTable bounds headers, in bytes on the wire: they must fit into one frame.
const maxTable = maxFrame - 4096

// Table holds headers or arguments. Values have the types of AMQP 0-9-1, and
// come as they are on the wire: nil, bool, int8 to int64, uint8 to uint32,
// float32, float64, string, []byte, time.Time (in seconds), [Decimal], Table and
// []any. On the way out int, uint, uint64 and map[string]any are taken, too.
type Table map[string]any

// Decimal is the decimal number Value / 10^Scale.
type Decimal struct {
	Scale uint8
	Value int32
}

// String is the number in decimal notation, such as "-1.50".
func (d Decimal) String() string {
	digits := strconv.FormatInt(max(int64(d.Value), -int64(d.Value)), 10)
	if scale := int(d.Scale); scale > 0 {
		digits = strings.Repeat("0", max(scale+1-len(digits), 0)) + digits
		digits = digits[:len(digits)-scale] + "." + digits[len(digits)-scale:]
	}
	if d.Value < 0 {
		return "-" + digits
	}
	return digits
}

// fromWire replaces the client's types within t, in place, and makes it a Table.
func fromWire(t amqp.Table) Table {
	for key, value := range t {
		switch value.(type) {
		case amqp.Table, amqp.Decimal, []any:
			t[key] = valueFromWire(value)
		}
	}
	return Table(t)
}

func valueFromWire(value any) any {
	switch v := value.(type) {
	case amqp.Table:
		return fromWire(v)
	case amqp.Decimal:
		return Decimal{Scale: v.Scale, Value: v.Value}
	case []any:
		for i := range v {
			v[i] = valueFromWire(v[i])
		}
	}
	return value
}

// toWire copies t with the client's types. The error names the key and the type
// of a value that AMQP cannot carry, never the value.
func toWire(t Table) (amqp.Table, error) {
	if t == nil {
		return nil, nil
	}
	size := 0
	wire, err := tableToWire(t, &size, 0)
	if err == nil && size > maxTable {
		return nil, fmt.Errorf("has %d bytes, more than %d: %w", size, maxTable, broadway.ErrTooLarge)
	}
	return wire, err
}

func tableToWire(t map[string]any, size *int, depth int) (amqp.Table, error) {
	const deepest = 32 // what the client reads: more would end its connection
	if depth > deepest {
		return nil, fmt.Errorf("is nested deeper than %d: %w", deepest, broadway.ErrTooLarge)
	}
	wire := make(amqp.Table, len(t))
	for key, value := range t {
		if len(key) > maxShortString {
			return nil, fmt.Errorf("has a key of %d bytes, more than %d", len(key), maxShortString)
		}
		*size += 1 + len(key)
		v, err := valueToWire(value, size, depth)
		if err != nil {
			return nil, fmt.Errorf("%q %w", key, err)
		}
		wire[key] = v
	}
	return wire, nil
}

func valueToWire(value any, size *int, depth int) (any, error) {
	*size += 9
	switch v := value.(type) {
	case nil, bool, int8, uint8, int16, uint16, int32, uint32, int64, float32, float64, time.Time:
		return v, nil
	case string:
		*size += len(v)
		return v, nil
	case []byte:
		*size += len(v)
		return v, nil
	case int:
		return intToWire(int64(v)), nil
	case uint:
		return uintToWire(uint64(v))
	case uint64:
		return uintToWire(v)
	case Decimal:
		return amqp.Decimal{Scale: v.Scale, Value: v.Value}, nil
	case Table:
		return tableToWire(v, size, depth+1)
	case map[string]any:
		return tableToWire(v, size, depth+1)
	case []any:
		return arrayToWire(v, size, depth)
	}
	return nil, fmt.Errorf("is a %T, which AMQP cannot carry", value)
}

func arrayToWire(values []any, size *int, depth int) (any, error) {
	wire := make([]any, len(values))
	for i, value := range values {
		v, err := valueToWire(value, size, depth+1)
		if err != nil {
			return nil, fmt.Errorf("[%d] %w", i, err)
		}
		wire[i] = v
	}
	return wire, nil
}

// intToWire is the 32-bit integer that RabbitMQ expects in arguments, or a 64-bit
// one. (The client would cut an int to 32 bits.)
func intToWire(v int64) any {
	if v >= math.MinInt32 && v <= math.MaxInt32 {
		return int32(v)
	}
	return v
}

func uintToWire(v uint64) (any, error) {
	if v > math.MaxInt64 {
		return nil, fmt.Errorf("is %d, more than 64 bits with a sign hold", v)
	}
	return intToWire(int64(v)), nil
}

// tableMistakes finds what toWire would refuse.
func tableMistakes(field string, t Table) []error {
	if _, err := toWire(t); err != nil {
		return []error{mistake(field, "%w", err)}
	}
	return nil
}

// integer is v as an integer, and whether it is one.
func integer(v any) (int64, bool) {
	switch v := v.(type) {
	case int8:
		return int64(v), true
	case uint8:
		return int64(v), true
	case int16:
		return int64(v), true
	case uint16:
		return int64(v), true
	case int32:
		return int64(v), true
	case uint32:
		return int64(v), true
	case int64:
		return v, true
	}
	return 0, false
}

// headers lists t in the order of its keys (AMQP keeps none), each value as
// text.
func (t Table) headers() []broadway.Header {
	if len(t) == 0 {
		return nil
	}
	list := make([]broadway.Header, 0, len(t))
	for key, value := range t {
		list = append(list, broadway.Header{Key: key, Value: text(value)})
	}
	slices.SortFunc(list, func(a, b broadway.Header) int { return strings.Compare(a.Key, b.Key) })
	return list
}

// text is how a header value is carried where headers are bytes: strings and
// bytes as they are, nil as nil, times as RFC 3339, tables and arrays as JSON,
// everything else in decimal notation.
func text(value any) []byte {
	switch v := value.(type) {
	case nil:
		return nil
	case []byte:
		return v
	case string:
		return []byte(v)
	case time.Time:
		return []byte(v.UTC().Format(time.RFC3339))
	case Table, []any:
		encoded, err := json.Marshal(v)
		if err != nil { // a float that JSON has no notation for
			return fmt.Append(nil, v)
		}
		return encoded
	}
	return fmt.Append(nil, value)
}
