package main

import (
	"fmt"
	"math"
	"math/bits"
	"runtime/debug"
	"runtime/metrics"
	"strings"
	"sync"
	"syscall"
	"time"
	"weak"
)

// As in latency.c, whose head says what an operation is. Goroutines stand in for threads.
type latencyNode struct {
	left, right        *latencyNode
	number, complement uint64
	payload            [4]uint64
}

const (
	latencyDepth   = 3
	latencyNodes   = 15
	latencyFrames  = 2048
	latencyHeld    = 64
	latencyStaying = 1024
	latencyBuckets = 60 * 32
)

type histogram struct {
	count      [latencyBuckets]uint64
	longest, n uint64
}

func (h *histogram) add(ns uint64) {
	if ns < 32 {
		h.count[ns]++
	} else {
		e := 63 - bits.LeadingZeros64(ns)
		h.count[uint64(e-4)*32+ns>>(e-5)&31]++
	}
	h.n++
	h.longest = max(h.longest, ns)
}

// The upper end of the bucket in which the value of that rank is.
func (h *histogram) at(share float64) float64 {
	rank, seen := uint64(share*float64(h.n)), uint64(0)
	for i := range uint64(latencyBuckets) {
		seen += h.count[i]
		if seen > rank {
			high := i
			if i >= 32 {
				high = (32+i%32+1)<<(i/32-1) - 1
			}
			return float64(min(high, h.longest))
		}
	}
	return float64(h.longest)
}

type latencyWorker struct {
	table, array, staying, target []*latencyNode
	weak                          []weak.Pointer[latencyNode]
	stale                         []bool
	random, made                  uint64
	began, ended                  time.Duration
	times                         histogram
}

// The C programs' roots are global too.
var (
	latencyWorkers []*latencyWorker
	latencyKind    string
	operations     int
	processStart   = time.Now()
)

func (w *latencyWorker) make(depth int) *latencyNode {
	n := new(latencyNode)
	w.made++
	n.number, n.complement = w.made, ^w.made
	if depth > 0 {
		n.left = w.make(depth - 1)
		n.right = w.make(depth - 1)
	}
	return n
}

func (n *latencyNode) size() int {
	check(n.complement == ^n.number, "node")
	if n.left == nil {
		return 1
	}
	return 1 + n.left.size() + n.right.size()
}

func (w *latencyWorker) operate() {
	i, j := randomNext(&w.random)%uint64(len(w.table)), randomNext(&w.random)%uint64(len(w.table))
	fresh, other := w.make(latencyDepth), w.table[j]
	mine, theirs := fresh.left.left, other.left.left
	fresh.left.left = theirs
	other.left.left = mine
	w.table[i] = fresh
	if w.array != nil {
		to, from := randomNext(&w.random)%uint64(len(w.array)), randomNext(&w.random)%latencyStaying
		w.array[to] = w.staying[from]
	}
	if w.weak != nil {
		k := randomNext(&w.random) % uint64(len(w.weak))
		check((w.weak[k].Value() == w.target[k]) == !w.stale[k], "weak reference")
		if w.stale[k] {
			w.weak[k] = weak.Make(w.target[k])
		} else {
			w.target[k] = w.make(0)
		}
		w.stale[k] = !w.stale[k]
	}
}

// One call of the clock for each, CLOCK_MONOTONIC through the vDSO as in C.
func (w *latencyWorker) loop() {
	then := time.Since(processStart)
	w.began = then
	for range operations {
		w.operate()
		now := time.Since(processStart)
		w.times.add(uint64(now - then))
		then = now
	}
	w.ended = then
}

//go:noinline
func (w *latencyWorker) deep(frames int) {
	var held [latencyHeld]*latencyNode
	first := w.made + 1
	for k := range held {
		held[k] = w.make(0)
	}
	if frames > 1 {
		w.deep(frames - 1)
	} else {
		w.loop()
	}
	for k := range held {
		check(held[k].number == first+uint64(k) && held[k].size() == 1, "held")
	}
}

func (w *latencyWorker) build(trees, pointers, weaks int) {
	w.table = make([]*latencyNode, trees)
	for i := range w.table {
		w.table[i] = w.make(latencyDepth)
	}
	if latencyKind == "array" {
		w.staying = make([]*latencyNode, latencyStaying)
		for i := range w.staying {
			w.staying[i] = w.make(0)
		}
		w.array = make([]*latencyNode, pointers)
		for i := range w.array {
			w.array[i] = w.staying[i%latencyStaying]
		}
	}
	if latencyKind == "weak" {
		w.target, w.stale = make([]*latencyNode, weaks), make([]bool, weaks)
		w.weak = make([]weak.Pointer[latencyNode], weaks)
		for i := range w.target {
			w.target[i] = w.make(0)
			w.weak[i] = weak.Make(w.target[i])
		}
	}
}

func everyWorker(work func(*latencyWorker)) {
	var group sync.WaitGroup
	for _, w := range latencyWorkers {
		group.Add(1)
		go func() {
			defer group.Done()
			work(w)
		}()
	}
	group.Wait()
}

func cpuMs() float64 {
	var u syscall.Rusage
	check(syscall.Getrusage(syscall.RUSAGE_SELF, &u) == nil, "rusage")
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e6
}

// What runtime/metrics says: histograms of stops, the collector's CPU.
func readMetrics() map[string]metrics.Sample {
	var samples []metrics.Sample
	for _, d := range metrics.All() {
		if strings.HasPrefix(d.Name, "/sched/pauses/") || strings.HasPrefix(d.Name, "/cpu/classes/gc/") || strings.HasPrefix(d.Name, "/gc/cycles/") {
			samples = append(samples, metrics.Sample{Name: d.Name})
		}
	}
	metrics.Read(samples)
	all := map[string]metrics.Sample{}
	for _, s := range samples {
		all[s.Name] = s
	}
	return all
}

// How many were added, and the lower and upper end of the bucket of the longest of them, in microseconds.
func added(before, after map[string]metrics.Sample, name string) (n uint64, low, high float64) {
	b, a := before[name].Value.Float64Histogram(), after[name].Value.Float64Histogram()
	for i := range a.Counts {
		if d := a.Counts[i] - b.Counts[i]; d > 0 {
			n, low, high = n+d, math.Max(0, a.Buckets[i])*1e6, a.Buckets[i+1]*1e6
		}
	}
	return
}

func latency(mib string, live float64, threads int, kind string, scale float64) {
	title, known := map[string]string{"plain": "", "deep": ", 1 MiB of stack", "array": ", 256 MiB array", "weak": ", 1 M weak references"}[kind]
	check(known && threads >= 1, "arguments")
	bytes, tree := live*scale*1048576, float64(latencyNodes*64)
	trees := int(bytes/tree/float64(threads)) + 16
	pointers := int(scale*(32<<20)/float64(threads)) + 16
	weaks := int(1e6*scale/float64(threads)) + 16
	beside := map[string]float64{"array": scale * (256 << 20), "weak": scale * 72e6}[kind]
	operations = int(max(6*(bytes+beside)/tree, 2e6*scale)/float64(threads)) + 1
	latencyKind = kind
	name := fmt.Sprintf("%s MiB, %s%s", mib, plural(threads, "thread"), title)

	start := time.Now()
	for t := range threads {
		latencyWorkers = append(latencyWorkers, &latencyWorker{random: uint64(t) + 1})
	}
	everyWorker(func(w *latencyWorker) { w.build(trees, pointers, weaks) })
	cpu, before := cpuMs(), readMetrics()
	var stopsBefore, stopsAfter debug.GCStats
	debug.ReadGCStats(&stopsBefore)
	everyWorker(func(w *latencyWorker) {
		if kind == "deep" {
			w.deep(latencyFrames)
		} else {
			w.loop()
		}
	})
	after := readMetrics()
	debug.ReadGCStats(&stopsAfter)
	run, cpu := time.Since(start).Seconds(), cpuMs()-cpu

	var all histogram
	began, ended := latencyWorkers[0].began, latencyWorkers[0].ended
	for _, w := range latencyWorkers {
		for i, n := range w.times.count {
			all.count[i] += n
		}
		all.n += w.times.n
		all.longest = max(all.longest, w.times.longest)
		began, ended = min(began, w.began), max(ended, w.ended)
		for _, t := range w.table {
			check(t.size() == latencyNodes, "tree")
		}
		for _, n := range w.array {
			check(n.size() == 1, "array")
		}
		for _, n := range w.target {
			check(n.size() == 1, "target")
		}
	}
	shares := []struct {
		name  string
		share float64
	}{{"p50", 0.5}, {"p99", 0.99}, {"p99.9", 0.999}, {"p99.99", 0.9999}}
	fmt.Printf("%s:", name)
	for _, s := range shares {
		fmt.Printf(" %s %.2f us,", s.name, all.at(s.share)/1e3)
	}
	fmt.Printf(" longest %.1f us; %d operations in %.3f s, whole run %.3f s\n", float64(all.longest)/1e3, all.n, (ended - began).Seconds(), run)
	for _, s := range shares {
		report(name+": "+s.name, "us", all.at(s.share)/1e3)
	}
	report(name+": longest operation", "us", float64(all.longest)/1e3)

	// A bucket counts by its lower end: no stop is called longer than it was. The stops of a cycle in sum are exact.
	var longest, delay float64
	for _, d := range metrics.All() {
		s, ok := after[d.Name]
		if !ok {
			continue
		}
		switch s.Value.Kind() {
		case metrics.KindFloat64Histogram:
			n, low, high := added(before, after, d.Name)
			if n > 0 {
				fmt.Printf("  %s: %d, longest %.1f to %.1f us\n", d.Name, n, low, high)
			}
			if strings.HasPrefix(d.Name, "/sched/pauses/total/") {
				longest = max(longest, low)
			} else if strings.HasPrefix(d.Name, "/sched/pauses/stopping/") {
				delay = max(delay, low)
			}
		case metrics.KindFloat64:
			fmt.Printf("  %s: %.6f\n", d.Name, s.Value.Float64()-before[d.Name].Value.Float64())
		case metrics.KindUint64:
			fmt.Printf("  %s: %d\n", d.Name, s.Value.Uint64()-before[d.Name].Value.Uint64())
		}
	}
	seconds := func(metric string) float64 { return after[metric].Value.Float64() - before[metric].Value.Float64() }
	report(name+": longest stop", "us", longest)
	report(name+": all stops", "ms", float64((stopsAfter.PauseTotal-stopsBefore.PauseTotal).Nanoseconds())/1e6)
	report(name+": longest time to a safepoint", "us", delay)
	report(name+": assists", "ms", seconds("/cpu/classes/gc/mark/assist:cpu-seconds")*1e3)
	report(name+": collector's CPU", "ms", seconds("/cpu/classes/gc/total:cpu-seconds")*1e3)
	report(name+": whole run", "s", run)
	report(name+": CPU of the operations", "ms", cpu)
	var usage syscall.Rusage
	check(syscall.Getrusage(syscall.RUSAGE_SELF, &usage) == nil, "rusage")
	report(name+": peak resident", "MB", float64(usage.Maxrss)*1024/1e6)
}
