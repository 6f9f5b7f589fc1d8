# The bounds that Besom is held to, from the samples (samples.awk) of what was run. A bound of what was not run, or has no
# peer here, is not measured. Fails if one does not hold, or none was measured.

# Besom's median is at most `most` times the other's; or, of a rate, at least.
function bound(key, ours, theirs, other, most,   part, rate, good) {
    split(key, part, "|")
    if (ours == "" || theirs == "") {
        printf "-    %s, %s: not measured against %s\n", part[1], part[2], other
        left++
        return
    }
    rate = index(part[3], "/")
    good = rate ? ours >= most * theirs : ours <= most * theirs
    printf "%s %s, %s: %s %s; %s %.3g times the %s of %s\n", good ? "ok  " : "FAIL", part[1], part[2], figure(ours), part[3],
        rate ? "at least" : "at most", most, figure(theirs), other
    if (good) held++; else broken++
}
function of(key, peer) { return ((key "|" peer) in count) ? median(key "|" peer) : "" }
function against(key, peer, most) { bound(key, of(key, "besom"), of(key, peer), peer, most) }

END {
    printf "\nBounds, of medians:\n"
    for (r = 1; r <= n; r++) {
        key = rows[r]
        split(key, part, "|")
        if (part[1] == "latency") {
            if (part[2] ~ /: longest stop$/) {
                against(key, "go", 1)
                # The rows begin with how much lives: least first.
                size = part[2]
                sub(/ .*/, "", size)
                rest = part[2]
                sub(/^[^ ]*/, "", rest)
                if (!(rest in least)) { least[rest] = key; size_of[rest] = size }
                else bound(key, of(key, "besom"), of(least[rest], "besom"), "Besom at " size_of[rest] " MiB", 1.5)
            }
            if (part[2] ~ /: p99[.]9$/) against(key, "go", 1)
            if (part[2] ~ /: whole run$/) against(key, "besom-stw", 1.1)
        }
        if (part[1] == "trees" && part[3] == "s") {
            against(key, "go", 1 / 2.2)
            against(key, "libgc", 1 / 3)
        }
        if (part[1] == "mark" && part[2] ~ /, per CPU$/) against(key, "go", 1.5)
    }
    printf "%d hold, %d do not, %d not measured.\n", held, broken, left
    exit broken > 0 || held == 0
}
