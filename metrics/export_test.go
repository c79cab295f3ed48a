package metrics

import (
	"context"
	"net"
	"net/http"
)

// ServeOn serves on a listener of the test's own.
func ServeOn(ctx context.Context, listener net.Listener, handler http.Handler) error {
	return new(serving).run(ctx, listener, handler)
}
