package httpapi

import "sync"

// crowd counts what clients have under way, requests or streams, so that one with many connections leaves room for the others. It holds
// no more than there is under way.
type crowd struct {
	limit int // of one client

	mu sync.Mutex
	of map[string]int
}

func newCrowd(all int) *crowd {
	return &crowd{limit: max(1, all-all/4), of: map[string]int{}}
}

// enter counts one more, unless the client has as many as it may.
func (c *crowd) enter(client string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.of[client] >= c.limit {
		return false
	}
	c.of[client]++
	return true
}

func (c *crowd) leave(client string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.of[client]--; c.of[client] == 0 {
		delete(c.of, client)
	}
}
