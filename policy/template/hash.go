package template

import (
	"encoding/binary"
	"math/bits"
)

// sip is SipHash-2-4 (Aumasson and Bernstein 2012).
func sip(key [16]byte, data []byte) uint64 {
	a, b, c, d := sipBegin(key)
	n := len(data)
	for ; len(data) >= 8; data = data[8:] {
		w := binary.LittleEndian.Uint64(data)
		d ^= w
		a, b, c, d = sipRound(a, b, c, d)
		a, b, c, d = sipRound(a, b, c, d)
		a ^= w
	}
	return sipEnd(a, b, c, d, uint64(n)<<56|tail(data))
}

// sipWords is sip of words, each as eight octets.
func sipWords(key [16]byte, words ...uint64) uint64 {
	a, b, c, d := sipBegin(key)
	for _, w := range words {
		d ^= w
		a, b, c, d = sipRound(a, b, c, d)
		a, b, c, d = sipRound(a, b, c, d)
		a ^= w
	}
	return sipEnd(a, b, c, d, uint64(8*len(words))<<56)
}

func sipBegin(key [16]byte) (a, b, c, d uint64) {
	k0, k1 := binary.LittleEndian.Uint64(key[:8]), binary.LittleEndian.Uint64(key[8:])
	return k0 ^ 0x736f6d6570736575, k1 ^ 0x646f72616e646f6d, k0 ^ 0x6c7967656e657261, k1 ^ 0x7465646279746573
}

func sipEnd(a, b, c, d, last uint64) uint64 {
	d ^= last
	a, b, c, d = sipRound(a, b, c, d)
	a, b, c, d = sipRound(a, b, c, d)
	a ^= last
	c ^= 0xff
	a, b, c, d = sipRound(a, b, c, d)
	a, b, c, d = sipRound(a, b, c, d)
	a, b, c, d = sipRound(a, b, c, d)
	a, b, c, d = sipRound(a, b, c, d)
	return a ^ b ^ c ^ d
}

// sipRound is small enough for the compiler to put it in its place.
func sipRound(a, b, c, d uint64) (uint64, uint64, uint64, uint64) {
	a += b
	c += d
	b = bits.RotateLeft64(b, 13) ^ a
	d = bits.RotateLeft64(d, 16) ^ c
	a = bits.RotateLeft64(a, 32) + d
	c += b
	d = bits.RotateLeft64(d, 21) ^ a
	b = bits.RotateLeft64(b, 17) ^ c
	return a, b, bits.RotateLeft64(c, 32), d
}

// wordHash is a quick hash of a word, good enough to sample by. What is kept of
// it goes through sip.
func wordHash(seed uint64, w []byte) uint64 {
	h := seed ^ uint64(len(w))
	for ; len(w) >= 8; w = w[8:] {
		h = mix(h ^ binary.LittleEndian.Uint64(w))
	}
	return mix(h ^ tail(w))
}

// tail is up to seven octets as a number, the first one lowest.
func tail(b []byte) uint64 {
	switch n := len(b); {
	case n >= 4:
		return uint64(binary.LittleEndian.Uint32(b)) | uint64(binary.LittleEndian.Uint32(b[n-4:]))<<(8*(n-4))
	case n > 0:
		return uint64(b[0]) | uint64(b[n/2])<<(8*(n/2)) | uint64(b[n-1])<<(8*(n-1))
	}
	return 0
}

func mix(h uint64) uint64 {
	hi, lo := bits.Mul64(h^0x9e3779b97f4a7c15, 0xd6e8feb86659fd93)
	return hi ^ lo
}
