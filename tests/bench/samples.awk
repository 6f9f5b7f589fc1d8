# Samples 'subset|row|unit|peer|value', and their medians: `rows` 1 to `n` are the keys 'subset|row|unit' in order, a cell is
# a key and a peer. For table.awk and bounds.awk.
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
