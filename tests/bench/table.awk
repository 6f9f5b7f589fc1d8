# From one benchmark's samples (samples.awk) its table of medians and ratios. -v columns='besom go ...' -v markdown=0|1
function line(first, second,   i) {
    if (markdown) {
        printf "| %s | %s |", first, second
        for (i = 1; i <= peers; i++) printf " %s |", text[i]
    } else {
        printf "%-" width "s %-12s", first, second
        for (i = 1; i <= peers; i++) printf (i == 1 ? " %9s" : " %18s"), text[i]
    }
    print ""
}

END {
    peers = split(columns, peer, " ")
    width = 48
    for (r = 1; r <= n; r++) {
        split(rows[r], part, "|")
        if (length(part[2]) > width) width = length(part[2])
    }
    for (i = 1; i <= peers; i++) text[i] = peer[i]
    line("", "unit")
    if (markdown) {
        for (i = 1; i <= peers; i++) text[i] = "---:"
        line("---", "---")
    }
    for (r = 1; r <= n; r++) {
        split(rows[r], part, "|")
        ours = (rows[r] "|besom" in count) ? median(rows[r] "|besom") : 0
        for (i = 1; i <= peers; i++) {
            cell = rows[r] "|" peer[i]
            if (!(cell in count)) { text[i] = "-"; continue }
            theirs = median(cell)
            text[i] = figure(theirs)
            # A rate is better when higher, anything else when lower.
            if (i > 1 && ours > 0 && theirs > 0)
                text[i] = text[i] sprintf(" (%sx)", figure(index(part[3], "/") ? ours / theirs : theirs / ours))
        }
        line(part[2], part[3])
    }
}
