# The instructions of a run that are in the statistics: of lines 'address count' and of addr2line's answer for these
# addresses, inlined callers included. Prints all of them, and those by which a P's cache counts its objects.
NR == FNR { count[$1] = $2; next }
/^0x/ { address = $0; sub(/^0x0*/, "0x", address); state = "outside"; next }
state == "outside" && /\/stats\/src\/consistent\.rs:/ { state = "inside"; all += count[address] }
# The first caller that is not of the statistics.
state == "inside" && !/\/stats\/src\/consistent\.rs:/ { state = "done"; if (/\/runtime\/src\/mcache\.rs:/) objects += count[address] }
END { printf "%d %d\n", all, objects }
