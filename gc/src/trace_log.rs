//! One line a cycle on stderr, when asked for with `gc_trace`.

use crate::cycle::{Cause, CycleRecord};
use besom_stats::print_line;

/// Prints the line of a cycle: number, time since the heap was made, share of CPU time so far, phases on the
/// clock (finish sweep + stop + roots + mark + end; beside the program, the first is a stop, and the end another), how
/// long the world was stopped, workers' CPU time, live bytes before, after, the goal.
pub fn print(heap: u64, cpus: u32, r: &CycleRecord) {
    let ms = |d: std::time::Duration| d.as_secs_f64() * 1e3;
    let mib = |bytes: u64| bytes as f64 / (1 << 20) as f64;
    let beside = r.beside.is_some();
    let share = r.gc_cpu.as_secs_f64() / (r.since_start.as_secs_f64() * f64::from(cpus));
    print_line(format_args!(
        "heap {heap} gc {} @{:.3}s {:.0}%: {:.3}+{:.3}+{:.3}+{:.3}+{:.3} ms clock, {:.3} ms cpu, \
         {:.3} ms stopped, {:.1}->{:.1} MiB, {:.1} MiB goal, {} workers{}{}",
        r.number,
        r.since_start.as_secs_f64(),
        share * 100.0,
        ms(r.sweep),
        ms(if beside { r.start } else { r.stop }),
        ms(r.marked.root_time),
        ms(r.marked.drain_time),
        ms(if beside { r.stop + r.flush + r.end } else { r.end }),
        ms(r.marked.cpu),
        ms(r.pause),
        mib(r.before),
        mib(r.marked.live.0 as u64),
        mib(r.goal),
        r.marked.workers,
        if beside { ", beside" } else { "" },
        match r.cause {
            Cause::Pace => "",
            Cause::Forced => " (forced)",
            Cause::Every => " (collect_every)",
            Cause::Limit => " (limit)",
        }
    ));
}
