// The benchmarks of tests/bench in Go, one program: the first argument names the benchmark, the rest are as for the C
// program of that name, and so are the lines that it prints.
package main

import (
	"fmt"
	"os"
	"strconv"
)

func main() {
	if len(os.Args) < 2 {
		fail("usage: name arguments")
	}
	switch os.Args[1] {
	case "trees":
		trees(int(argument(2, 20)))
	case "alloc":
		alloc(argument(2, 1))
	case "large":
		large(argument(2, 1))
	case "mark":
		mark(os.Args[2], os.Args[3], argument(4, 1))
	case "threads":
		threads(int(argument(2, 2)), argument(3, 1))
	case "latency":
		latency(os.Args[2], argument(2, 64), int(argument(3, 1)), os.Args[4], argument(5, 1))
	default:
		fail("no benchmark " + os.Args[1])
	}
}

func argument(at int, otherwise float64) float64 {
	if at >= len(os.Args) {
		return otherwise
	}
	value, err := strconv.ParseFloat(os.Args[at], 64)
	if err != nil {
		fail(err.Error())
	}
	return value
}

func fail(why string) {
	fmt.Fprintln(os.Stderr, why)
	os.Exit(1)
}

func check(ok bool, what string) {
	if !ok {
		fail("not so: " + what)
	}
}

func report(name, unit string, value float64) { fmt.Printf("%s|%s|%.6g\n", name, unit, value) }

// splitmix64, as in peer.h.
func randomNext(state *uint64) uint64 {
	*state += 0x9e3779b97f4a7c15
	z := *state
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb
	return z ^ (z >> 31)
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.Itoa(n) + " " + what + "s"
}
