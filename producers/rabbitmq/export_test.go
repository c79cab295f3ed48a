package rabbitmq

// Held says how many bytes of messages the client holds that are not settled, and
// whether the socket is not read because of them.
func (p *Producer) Held() (bytes int64, waits bool) {
	s, _, _ := p.state()
	if s == nil {
		return 0, false
	}
	g := s.link.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.held, g.opened != nil
}
