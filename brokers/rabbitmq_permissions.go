package brokers

import (
	"fmt"
	"testing"
)

// Permit sets what the harness's user may configure, write and read in the test's virtual host, as regular expressions. The broker
// asks once for each channel, so they hold for channels that are opened from now on. Only a native broker can be asked: t fails on
// any other.
func (b *RabbitMQBroker) Permit(t testing.TB, configure, write, read string) {
	t.Helper()
	b.needNative(t, "way to change permissions")
	b.evaluate(t, fmt.Sprintf(`rabbit_auth_backend_internal:set_permissions(<<"%s">>, <<"%s">>, <<"%s">>, <<"%s">>, <<"%s">>, <<"broadway">>)`,
		b.state.User, b.vhost, configure, write, read))
}
