package trail

// recent is a map of a bounded number of queue ids: the oldest makes room. A
// queue id that comes back stands for the new message.
type recent[V any] struct {
	entries map[string]V
	order   []string // a ring
	next    int
	most    int
}

func newRecent[V any](most int) recent[V] {
	return recent[V]{entries: map[string]V{}, most: most}
}

func (r *recent[V]) get(id string) (V, bool) {
	v, ok := r.entries[id]
	return v, ok
}

func (r *recent[V]) put(id string, v V) {
	if _, known := r.entries[id]; known {
		r.entries[id] = v
		return
	}
	if len(r.order) < r.most {
		r.order = append(r.order, id)
	} else {
		delete(r.entries, r.order[r.next])
		r.order[r.next] = id
		r.next = (r.next + 1) % r.most
	}
	r.entries[id] = v
}
