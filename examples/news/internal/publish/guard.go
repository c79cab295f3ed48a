package publish

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"syscall"
	"time"
)

// ErrForbidden is wrapped by the error of a connection that must not be made.
var ErrForbidden = errors.New("publish: connection to an internal address")

// NewClient makes an HTTP client for addresses that strangers may have had a
// say in. It connects to public addresses only, judged by the IP address that
// the name resolved to, at the moment of connecting; allowed lists the
// exceptions, as "ip:port". It follows no redirect and heeds no proxy.
func NewClient(allowed ...string) *http.Client {
	dialer := &net.Dialer{Timeout: 5 * time.Second, Control: func(_, address string, _ syscall.RawConn) error {
		return permit(address, allowed)
	}}
	return &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DialContext: dialer.DialContext, TLSHandshakeTimeout: 5 * time.Second,
			MaxIdleConnsPerHost: 64, IdleConnTimeout: 30 * time.Second,
			MaxResponseHeaderBytes: 64 << 10, ResponseHeaderTimeout: 30 * time.Second,
		},
	}
}

// permit judges a resolved address.
func permit(address string, allowed []string) error {
	if slices.Contains(allowed, address) {
		return nil
	}
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("%w: %s", ErrForbidden, address)
	}
	if !public(ap.Addr()) {
		return fmt.Errorf("%w: %s", ErrForbidden, address)
	}
	return nil
}

// public says whether an address is on the Internet for everybody: none of the
// special ones of the IANA registries (RFC 6890).
func public(a netip.Addr) bool {
	a = a.Unmap()
	if !a.IsGlobalUnicast() || a.IsPrivate() || a.Zone() != "" {
		return false // loopback, link-local, multicast, unspecified, RFC 1918, ULA
	}
	return !slices.ContainsFunc(special(), func(p netip.Prefix) bool { return p.Contains(a) })
}

// special lists what netip's own questions leave out.
func special() []netip.Prefix {
	return []netip.Prefix{
		netip.MustParsePrefix("0.0.0.0/8"),       // this network
		netip.MustParsePrefix("100.64.0.0/10"),   // carrier-grade NAT
		netip.MustParsePrefix("192.0.0.0/24"),    // protocol assignments
		netip.MustParsePrefix("192.0.2.0/24"),    // documentation
		netip.MustParsePrefix("192.88.99.0/24"),  // 6to4 relay
		netip.MustParsePrefix("198.18.0.0/15"),   // benchmarks
		netip.MustParsePrefix("198.51.100.0/24"), // documentation
		netip.MustParsePrefix("203.0.113.0/24"),  // documentation
		netip.MustParsePrefix("240.0.0.0/4"),     // reserved, broadcast
		netip.MustParsePrefix("64:ff9b::/96"),    // NAT64: an IPv4 address in disguise
		netip.MustParsePrefix("64:ff9b:1::/48"),  // the same, local
		netip.MustParsePrefix("100::/64"),        // discard
		netip.MustParsePrefix("2001::/23"),       // Teredo and other protocols
		netip.MustParsePrefix("2001:db8::/32"),   // documentation
		netip.MustParsePrefix("2002::/16"),       // 6to4: an IPv4 address in disguise
		netip.MustParsePrefix("fec0::/10"),       // site-local
	}
}
