package main

import (
	"fmt"
	"time"
)

var largeValues [4][]*byte
var largeBytes [4][]uint64

func large(scale float64) {
	const total = 2 << 30
	zero := new(byte)
	for kib := 64; kib <= 65536; kib *= 4 {
		bytes := kib << 10
		n := max(int(scale*float64(total/bytes)), 8)
		name := fmt.Sprintf("%d KiB", kib)
		if kib >= 1024 {
			name = fmt.Sprintf("%d MiB", kib/1024)
		}
		start := time.Now()
		for i := 0; i < n; i++ {
			p := make([]*byte, bytes/8)
			for at := 0; at < len(p); at += 512 {
				p[at] = zero
			}
			largeValues[i%4] = p
		}
		report(name+" values", "us", float64(time.Since(start).Nanoseconds())/1e3/float64(n))
		largeValues = [4][]*byte{}
		start = time.Now()
		for i := 0; i < n; i++ {
			p := make([]uint64, bytes/8)
			for at := 0; at < len(p); at += 512 {
				p[at] = 1
			}
			largeBytes[i%4] = p
		}
		report(name+" bytes", "us", float64(time.Since(start).Nanoseconds())/1e3/float64(n))
		largeBytes = [4][]uint64{}
	}
}
