package main

import (
	"fmt"
	"syscall"
	"time"
)

type tree struct{ left, right *tree }

func makeTree(depth int) *tree {
	t := &tree{}
	if depth > 0 {
		t.left = makeTree(depth - 1)
		t.right = makeTree(depth - 1)
	}
	return t
}

func (t *tree) count() int {
	if t.left == nil {
		return 1
	}
	return 1 + t.left.count() + t.right.count()
}

func treeNodes(depth int) int { return 2<<depth - 1 }

var longLived *tree

func trees(depth int) {
	start := time.Now()
	check(makeTree(depth+1).count() == treeNodes(depth+1), "stretch")
	longLived = makeTree(depth)
	for d := 4; d <= depth; d += 4 {
		n, nodes := 1<<(depth-d+4), 0
		for i := 0; i < n; i++ {
			nodes += makeTree(d).count()
		}
		check(nodes == n*treeNodes(d), "nodes")
	}
	check(longLived.count() == treeNodes(depth), "long-lived")
	took := time.Since(start)
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		fail(err.Error())
	}
	report(fmt.Sprintf("depth %d", depth), "s", took.Seconds())
	report(fmt.Sprintf("depth %d, peak resident", depth), "MB", float64(usage.Maxrss)*1024/1e6)
}
