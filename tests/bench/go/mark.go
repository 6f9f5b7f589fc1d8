package main

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sort"
	"strconv"
	"time"
)

type node struct {
	edge    [4]*node
	payload [2]uint64
}

type entry struct {
	next        *entry
	key         *[2]uint64
	hash, value uint64
}

var (
	rootTree  *tree
	rootNode  *node
	rootTable []*entry
	rootArray []*[2]uint64
)

// The number of objects and their bytes, as in mark.c.
func build(shape string, scale float64) (int, int) {
	random := uint64(1)
	switch shape {
	case "trees":
		depth := 21
		for depth > 4 && scale < 1 {
			depth, scale = depth-1, scale*2
		}
		rootTree = makeTree(depth)
		return treeNodes(depth), treeNodes(depth) * 16
	case "graph":
		n := int(2e6*scale) + 16
		nodes := make([]*node, n)
		for i := range nodes {
			nodes[i] = new(node)
		}
		for i := n - 1; i > 0; i-- {
			j := int(randomNext(&random) % uint64(i+1))
			nodes[i], nodes[j] = nodes[j], nodes[i]
		}
		for i := range nodes {
			nodes[i].edge[0] = nodes[(i+1)%n]
			for k := 1; k < 4; k++ {
				nodes[i].edge[k] = nodes[randomNext(&random)%uint64(n)]
			}
		}
		rootNode = nodes[0]
		return n, n * 48
	case "table":
		n := int(2e6*scale) + 16
		rootTable = make([]*entry, n)
		for i := range n {
			e := &entry{key: &[2]uint64{uint64(i), 0}, hash: randomNext(&random), value: uint64(i)}
			bucket := &rootTable[e.hash%uint64(n)]
			e.next, *bucket = *bucket, e
		}
		return 2*n + 1, n * (8 + 32 + 16)
	case "array":
		n := int(4e6*scale) + 16
		rootArray = make([]*[2]uint64, n)
		for i := range n {
			rootArray[i] = new([2]uint64)
		}
		return n + 1, n * (8 + 16)
	}
	fail("no shape " + shape)
	return 0, 0
}

func mark(shape, workers string, scale float64) {
	count, err := strconv.Atoi(workers)
	if err != nil {
		fail(err.Error())
	}
	debug.SetGCPercent(-1)
	objects, bytes := build(shape, scale)
	debug.SetGCPercent(100)
	runtime.GC()
	took, marked, cpu := make([]float64, 7), markedNs(), cpuMs()
	for i := range took {
		start := time.Now()
		runtime.GC()
		took[i] = float64(time.Since(start).Nanoseconds())
	}
	// Go's figure is of the clock: where others took the processor, what the process had of it is nearer, sweeping and all.
	marked = min(markedNs()-marked, (cpuMs()-cpu)*1e6) / float64(len(took))
	sort.Float64s(took)
	ns := took[len(took)/2]
	name := shape + ", " + plural(count, "worker")
	report(name, "M objects/s", float64(objects)*1e3/ns)
	report(name, "GB/s", float64(bytes)/ns)
	report(name+", per CPU", "M objects/s", float64(objects)*1e3/marked)
}

// Processor time spent marking since the start, of whoever marked.
func markedNs() float64 {
	samples := []metrics.Sample{{Name: "/cpu/classes/gc/mark/assist:cpu-seconds"},
		{Name: "/cpu/classes/gc/mark/dedicated:cpu-seconds"}, {Name: "/cpu/classes/gc/mark/idle:cpu-seconds"}}
	metrics.Read(samples)
	sum := 0.0
	for _, s := range samples {
		sum += s.Value.Float64()
	}
	return sum * 1e9
}
