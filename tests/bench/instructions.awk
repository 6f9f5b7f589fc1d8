# The instructions spent in one function itself, from callgrind's output by address and line, with uncompressed
# names: -v fn=name.
# What follows a calls= line is the cost of the function called.
/^fn=/ { inside = ($0 == "fn=" fn); next }
/^calls=/ { skip = 1; next }
skip { skip = 0; next }
inside && /^0x/ { sum += $3 }
END { printf "%d\n", sum }
