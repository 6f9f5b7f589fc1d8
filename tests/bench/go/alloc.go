package main

import (
	"fmt"
	"time"
	"unsafe"
)

var ring [1024]unsafe.Pointer

// Types of constant size, each in a loop of its own: the compiler picks the allocator's entry by the type.
var bySize = []struct {
	bytes         int
	values, blobs func(n int)
}{
	{8, func(n int) {
		for i := 0; i < n; i++ {
			ring[i%1024] = unsafe.Pointer(new([1]*byte))
		}
	}, func(n int) {
		for i := 0; i < n; i++ {
			ring[i%1024] = unsafe.Pointer(new([1]uint64))
		}
	}},
	{16, func(n int) {
		for i := 0; i < n; i++ {
			ring[i%1024] = unsafe.Pointer(new([2]*byte))
		}
	}, func(n int) {
		for i := 0; i < n; i++ {
			ring[i%1024] = unsafe.Pointer(new([2]uint64))
		}
	}},
	{24, func(n int) {
		for i := 0; i < n; i++ {
			ring[i%1024] = unsafe.Pointer(new([3]*byte))
		}
	}, func(n int) {
		for i := 0; i < n; i++ {
			ring[i%1024] = unsafe.Pointer(new([3]uint64))
		}
	}},
	{32, func(n int) {
		for i := 0; i < n; i++ {
			ring[i%1024] = unsafe.Pointer(new([4]*byte))
		}
	}, func(n int) {
		for i := 0; i < n; i++ {
			ring[i%1024] = unsafe.Pointer(new([4]uint64))
		}
	}},
	{48, func(n int) {
		for i := 0; i < n; i++ {
			ring[i%1024] = unsafe.Pointer(new([6]*byte))
		}
	}, func(n int) {
		for i := 0; i < n; i++ {
			ring[i%1024] = unsafe.Pointer(new([6]uint64))
		}
	}},
	{64, func(n int) {
		for i := 0; i < n; i++ {
			ring[i%1024] = unsafe.Pointer(new([8]*byte))
		}
	}, func(n int) {
		for i := 0; i < n; i++ {
			ring[i%1024] = unsafe.Pointer(new([8]uint64))
		}
	}},
	{96, func(n int) {
		for i := 0; i < n; i++ {
			ring[i%1024] = unsafe.Pointer(new([12]*byte))
		}
	}, func(n int) {
		for i := 0; i < n; i++ {
			ring[i%1024] = unsafe.Pointer(new([12]uint64))
		}
	}},
	{128, func(n int) {
		for i := 0; i < n; i++ {
			ring[i%1024] = unsafe.Pointer(new([16]*byte))
		}
	}, func(n int) {
		for i := 0; i < n; i++ {
			ring[i%1024] = unsafe.Pointer(new([16]uint64))
		}
	}},
	{256, func(n int) {
		for i := 0; i < n; i++ {
			ring[i%1024] = unsafe.Pointer(new([32]*byte))
		}
	}, func(n int) {
		for i := 0; i < n; i++ {
			ring[i%1024] = unsafe.Pointer(new([32]uint64))
		}
	}},
	{1024, func(n int) {
		for i := 0; i < n; i++ {
			ring[i%1024] = unsafe.Pointer(new([128]*byte))
		}
	}, func(n int) {
		for i := 0; i < n; i++ {
			ring[i%1024] = unsafe.Pointer(new([128]uint64))
		}
	}},
	{4096, func(n int) {
		for i := 0; i < n; i++ {
			ring[i%1024] = unsafe.Pointer(new([512]*byte))
		}
	}, func(n int) {
		for i := 0; i < n; i++ {
			ring[i%1024] = unsafe.Pointer(new([512]uint64))
		}
	}},
	{32768, func(n int) {
		for i := 0; i < n; i++ {
			ring[i%1024] = unsafe.Pointer(new([4096]*byte))
		}
	}, func(n int) {
		for i := 0; i < n; i++ {
			ring[i%1024] = unsafe.Pointer(new([4096]uint64))
		}
	}},
}

func perAlloc(bytes int, scale float64, loop func(n int)) float64 {
	n := 1e5
	switch {
	case bytes <= 128:
		n = 1e7
	case bytes <= 1024:
		n = 3e6
	case bytes <= 4096:
		n = 1e6
	}
	n *= scale
	start := time.Now()
	loop(int(n))
	return float64(time.Since(start).Nanoseconds()) / float64(int(n))
}

func alloc(scale float64) {
	values := map[int]float64{}
	for _, s := range bySize {
		values[s.bytes] = perAlloc(s.bytes, scale, s.values)
		report(fmt.Sprintf("%d B values", s.bytes), "ns", values[s.bytes])
		report(fmt.Sprintf("%d B bytes", s.bytes), "ns", perAlloc(s.bytes, scale, s.blobs))
	}
	// Go has one kind of object with pointers.
	for _, bytes := range []int{16, 32, 64, 128} {
		for _, kind := range []string{"layout", "conservative", "traced"} {
			report(fmt.Sprintf("%d B %s", bytes, kind), "ns", values[bytes])
		}
	}
	var words [4096]int
	random := uint64(1)
	for i := range words {
		words[i] = int(2 + randomNext(&random)%31)
	}
	report("16 to 256 B values, mixed", "ns", perAlloc(128, scale, func(n int) {
		for i := 0; i < n; i++ {
			ring[i%1024] = unsafe.Pointer(unsafe.SliceData(make([]*byte, words[i%4096])))
		}
	}))
}
