# From one benchmark's samples 'subset|row|unit|peer|value' its table of medians and ratios. -v columns='besom go ...' -v markdown=0|1
{
    key = $1 "|" $2 "|" $3
    if (!(key in seen)) { seen[key] = 1; rows[++n] = key }
    cell = key "|" $4
    values[cell, ++count[cell]] = $5
}

# The middle of the values of a cell; with an even number, the mean of the two in the middle.
function median(cell,   k, i, j, v, sorted) {
    k = count[cell]
    for (i = 1; i <= k; i++) {
        v = values[cell, i] + 0
        for (j = i - 1; j >= 1 && sorted[j] > v; j--) sorted[j + 1] = sorted[j]
        sorted[j + 1] = v
    }
    return k % 2 ? sorted[(k + 1) / 2] : (sorted[k / 2] + sorted[k / 2 + 1]) / 2
}

# Three digits that matter.
function figure(v) {
    if (v >= 100) return sprintf("%.0f", v)
    if (v >= 10) return sprintf("%.1f", v)
    if (v >= 1) return sprintf("%.2f", v)
    return sprintf("%.3f", v)
}

function line(first, second,   i) {
    if (markdown) {
        printf "| %s | %s |", first, second
        for (i = 1; i <= peers; i++) printf " %s |", text[i]
    } else {
        printf "%-48s %-12s", first, second
        for (i = 1; i <= peers; i++) printf (i == 1 ? " %9s" : " %18s"), text[i]
    }
    print ""
}

END {
    peers = split(columns, peer, " ")
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
