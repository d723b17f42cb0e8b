package template

// Len is how many parts are remembered. It goes through all of them: of 200,000
// that takes a few milliseconds at most.
func (m *Memory) Len() (n int) {
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.Lock()
		for _, set := range s.sets {
			if set == nil {
				continue
			}
			for _, key := range set.keys {
				if key != 0 {
					n++
				}
			}
		}
		s.mu.Unlock()
	}
	return n
}
