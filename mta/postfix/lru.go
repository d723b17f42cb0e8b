package postfix

import "container/list"

// lru keeps the answers used last, up to a number. Not safe for concurrent
// use.
type lru struct {
	most  int
	order *list.List // of *entry, used last in front
	byKey map[string]*list.Element
}

type entry struct {
	key    string
	answer answer
}

func newLRU(most int) lru {
	return lru{most: most, order: list.New(), byKey: map[string]*list.Element{}}
}

func (c *lru) len() int { return len(c.byKey) }

func (c *lru) get(key string) (answer, bool) {
	e, ok := c.byKey[key]
	if !ok {
		return answer{}, false
	}
	c.order.MoveToFront(e)
	return e.Value.(*entry).answer, true
}

func (c *lru) put(key string, a answer) {
	if e, ok := c.byKey[key]; ok {
		e.Value.(*entry).answer = a
		c.order.MoveToFront(e)
		return
	}
	if len(c.byKey) >= c.most {
		oldest := c.order.Back()
		delete(c.byKey, oldest.Value.(*entry).key)
		c.order.Remove(oldest)
	}
	c.byKey[key] = c.order.PushFront(&entry{key, a})
}

func (c *lru) remove(key string) {
	if e, ok := c.byKey[key]; ok {
		c.order.Remove(e)
		delete(c.byKey, key)
	}
}

// newest is the key used last.
func (c *lru) newest() (string, bool) {
	e := c.order.Front()
	if e == nil {
		return "", false
	}
	return e.Value.(*entry).key, true
}
