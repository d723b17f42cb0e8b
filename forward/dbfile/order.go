package dbfile

// order is how a machine writes numbers. Reads are at offsets that were checked.
type order bool

const (
	little order = false
	big    order = true
)

func (o order) u16(s string, at int) int {
	if o == big {
		return int(s[at])<<8 | int(s[at+1])
	}
	return int(s[at]) | int(s[at+1])<<8
}

func (o order) u32(s string, at int) uint32 {
	s = s[at : at+4]
	if o == big {
		return uint32(s[0])<<24 | uint32(s[1])<<16 | uint32(s[2])<<8 | uint32(s[3])
	}
	return uint32(s[0]) | uint32(s[1])<<8 | uint32(s[2])<<16 | uint32(s[3])<<24
}
