package main

import (
	"sync"
	"time"
)

// Goroutines stand in for threads; GOMAXPROCS is the number of CPUs.
func threads(count int, scale float64) {
	run := func(name string, objects float64, work func()) {
		var group sync.WaitGroup
		start := time.Now()
		for range count {
			group.Add(1)
			go func() {
				defer group.Done()
				work()
			}()
		}
		group.Wait()
		took := float64(time.Since(start).Nanoseconds())
		report(name+", "+plural(count, "thread"), "M objects/s", objects*float64(count)*1e3/took)
	}
	n := int(4000*scale) + 1
	run("trees", float64(n*treeNodes(10)+treeNodes(14)), func() {
		kept := makeTree(14)
		for range n {
			check(makeTree(10).right != nil, "tree")
		}
		check(kept.count() == treeNodes(14), "kept")
	})
	m := int(8e6*scale) + 1
	run("64 B", float64(m), func() {
		ring := make([]*[8]*byte, 1024)
		for i := range m {
			ring[i%1024] = new([8]*byte)
		}
	})
}
