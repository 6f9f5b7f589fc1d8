//! One line a cycle on stderr, when asked for with `gc_trace`.

use crate::cycle::{Cause, CycleRecord};
use besom_stats::print_line;

/// Prints the line of a cycle: number, time since the heap was made, share of CPU time so far, phases on the
/// clock (finish sweep + stop + roots + mark + end), workers' CPU time, live bytes before, after, the goal.
pub fn print(heap: u64, cpus: u32, r: &CycleRecord) {
    let ms = |d: std::time::Duration| d.as_secs_f64() * 1e3;
    let mib = |bytes: u64| bytes as f64 / (1 << 20) as f64;
    let share = r.gc_cpu.as_secs_f64() / (r.since_start.as_secs_f64() * f64::from(cpus));
    print_line(format_args!(
        "heap {heap} gc {} @{:.3}s {:.0}%: {:.3}+{:.3}+{:.3}+{:.3}+{:.3} ms clock, {:.3} ms cpu, \
         {:.1}->{:.1} MiB, {:.1} MiB goal, {} workers{}",
        r.number,
        r.since_start.as_secs_f64(),
        share * 100.0,
        ms(r.sweep),
        ms(r.stop),
        ms(r.marked.root_time),
        ms(r.marked.drain_time),
        ms(r.end),
        ms(r.marked.cpu),
        mib(r.before),
        mib(r.marked.live.0 as u64),
        mib(r.goal),
        r.marked.workers,
        match r.cause {
            Cause::Pace => "",
            Cause::Forced => " (forced)",
            Cause::Every => " (collect_every)",
            Cause::Limit => " (limit)",
        }
    ));
}
