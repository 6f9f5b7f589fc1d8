//! Draws a timeline's file as a picture: a row for each track, the heap's size below, and one cycle enlarged.
//!
//! ```text
//! scheme --gc-timeline run.json program.scm
//! cargo run -p besom-tests --bin timeline-svg -- run.json --cycles 6 8 --zoom 7 > run.svg
//! ```

use besom_tests::timeline::{Sample, Slice, Trace};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::ops::Range;
use std::path::PathBuf;

/// Width of the picture, in its own units.
const WIDTH: f64 = 1200.0;
/// Where time begins and ends.
const PLOT: Range<f64> = 150.0..1176.0;
/// Height of a row of slices.
const ROW: f64 = 20.0;
/// Height of the heap's size.
const CHART: f64 = 120.0;
/// Rough width of a character.
const CHARACTER: f64 = 6.3;

/// Names and colours, in the order of the legend.
const COLOURS: [(&str, &str); 22] = [
    ("world stopped", "#c8553d"),
    ("cycle", "#8d99ae"),
    ("finish sweep", "#588157"),
    ("stop", "#e29578"),
    ("flush", "#b8a9c9"),
    ("roots", "#f2cc8f"),
    ("mark", "#3d7ea6"),
    ("mark assist", "#28587b"),
    ("own roots", "#d9a441"),
    ("resolve specials", "#7f5539"),
    ("end", "#5e548e"),
    ("resume", "#a9a0cf"),
    ("sweep", "#74a57f"),
    ("sweep assist", "#b5cf60"),
    ("sweep the rest", "#386641"),
    ("stopped", "#efb0a1"),
    ("waits for a P", "#f4d35e"),
    ("waits for a collection", "#cdb4db"),
    ("attach", "#9a8c98"),
    ("release", "#7d8597"),
    ("scavenge", "#a3a9b5"),
    ("walk", "#c06c84"),
];

/// The lines of the heap's size, and what they are called.
const SIZES: [(&str, &str); 3] = [("live", "live bytes"), ("goal", "goal"), ("footprint", "footprint")];

fn colour(name: &str) -> &'static str {
    COLOURS.iter().find(|(known, _)| *known == name).map_or("#999999", |(_, colour)| colour)
}

/// Whether white is easier to read on a colour than black.
fn is_dark(colour: &str) -> bool {
    let part = |from: usize| u32::from_str_radix(&colour[from..from + 2], 16).unwrap_or(0);
    299 * part(1) + 587 * part(3) + 114 * part(5) < 140_000
}

/// A stretch of time, drawn from the left to the right of the plot.
struct Axis(Range<u64>);

impl Axis {
    fn x(&self, ns: u64) -> f64 {
        let part =
            (ns.clamp(self.0.start, self.0.end) - self.0.start) as f64 / (self.0.end - self.0.start) as f64;
        PLOT.start + part * (PLOT.end - PLOT.start)
    }

    fn shows(&self, slice: &Slice) -> bool {
        slice.start < self.0.end && slice.end() > self.0.start
    }
}

/// 1, 2 or 5 times a power of ten: the least that cuts `whole` into at most `most` parts.
fn step(whole: f64, most: f64) -> f64 {
    let mut step = 10f64.powf((whole / most).log10().floor());
    for factor in [2.0, 2.5, 2.0] {
        if whole / step > most {
            step *= factor;
        }
    }
    step
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// The picture so far, and where its next part begins.
struct Picture {
    svg: String,
    y: f64,
}

impl Picture {
    fn text(&mut self, x: f64, y: f64, class: &str, text: &str) {
        let _ = writeln!(self.svg, r#"<text x="{x:.1}" y="{y:.1}" class="{class}">{}</text>"#, escaped(text));
    }

    fn line(&mut self, from: (f64, f64), to: (f64, f64), class: &str) {
        let ((x1, y1), (x2, y2)) = (from, to);
        let _ = writeln!(
            self.svg,
            r#"<line x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}" class="{class}"/>"#
        );
    }

    fn rect(&mut self, x: f64, y: f64, width: f64, height: f64, style: &str) {
        let _ = writeln!(
            self.svg,
            r#"<rect x="{x:.2}" y="{y:.1}" width="{width:.2}" height="{height:.1}" {style}/>"#
        );
    }

    fn title(&mut self, title: &str, subtitle: &str) {
        self.text(24.0, 34.0, "title", title);
        self.text(24.0, 56.0, "dim", subtitle);
        self.y = 76.0;
    }

    fn legend(&mut self, names: &BTreeSet<&str>) {
        let mut x = 24.0;
        for (name, colour) in COLOURS.iter().filter(|(name, _)| names.contains(name)) {
            let width = 22.0 + name.len() as f64 * CHARACTER + 14.0;
            if x + width > WIDTH - 24.0 {
                (x, self.y) = (24.0, self.y + 20.0);
            }
            self.rect(x, self.y, 14.0, 14.0, &format!(r#"rx="2" fill="{colour}""#));
            self.text(x + 20.0, self.y + 11.5, "label", name);
            x += width;
        }
        for (class, name) in SIZES {
            let width = 34.0 + name.len() as f64 * CHARACTER + 14.0;
            if x + width > WIDTH - 24.0 {
                (x, self.y) = (24.0, self.y + 20.0);
            }
            self.line((x, self.y + 7.0), (x + 26.0, self.y + 7.0), class);
            self.text(x + 32.0, self.y + 11.5, "label", name);
            x += width;
        }
        self.y += 34.0;
    }

    /// The times along the top of a panel `height` high.
    fn times(&mut self, axis: &Axis, height: f64) {
        let ms = |ns: u64| ns as f64 / 1e6;
        let (from, to) = (ms(axis.0.start), ms(axis.0.end));
        let step = step(to - from, 12.0);
        let places = (-step.log10()).ceil().max(0.0) as usize;
        let top = self.y;
        for n in (from / step).ceil() as u64..=(to / step).floor() as u64 {
            let x = axis.x((n as f64 * step * 1e6) as u64);
            self.line((x, top), (x, top + height), "grid");
            self.text(x, top - 6.0, "tick", &format!("{:.places$}", n as f64 * step));
        }
        self.text(PLOT.start - 26.0, top - 6.0, "row", "ms");
    }

    fn slice(&mut self, axis: &Axis, slice: &Slice, y: f64) {
        let colour = colour(&slice.name);
        let (from, to) = (axis.x(slice.start.max(axis.0.start)), axis.x(slice.end().min(axis.0.end)));
        let width = (to - from).max(0.9);
        let told = format!("{}, {:.3} ms, {}", slice.name, slice.ns as f64 / 1e6, slice.args);
        let _ = writeln!(self.svg, "<g><title>{}</title>", escaped(&told));
        self.rect(from, y + 1.0, width, ROW - 2.0, &format!(r#"rx="1.5" fill="{colour}""#));
        let long = match slice.name.as_str() {
            "cycle" => format!("cycle {}", slice.args["number"]),
            name if width > 220.0 && slice.args["pages"].is_u64() => {
                format!("{name}, {} pages", slice.args["pages"])
            }
            name => name.to_owned(),
        };
        if let Some(text) =
            [long.as_str(), &slice.name].into_iter().find(|t| t.len() as f64 * CHARACTER + 8.0 < width)
        {
            let class = if is_dark(colour) { "on dark" } else { "on" };
            self.text(from + width / 2.0, y + ROW / 2.0 + 4.0, class, text);
        }
        self.svg.push_str("</g>\n");
    }

    /// A row for each track that has slices at the time, more where slices lie in slices.
    fn tracks(&mut self, trace: &Trace, axis: &Axis) {
        let mut tids: Vec<_> = trace.names.keys().copied().collect();
        tids.sort_by_key(|tid| (place(&trace.names[tid]), *tid));
        for tid in tids {
            let name = &trace.names[&tid];
            let slices: Vec<_> = trace.slices.iter().filter(|s| s.tid == tid && axis.shows(s)).collect();
            if slices.is_empty() {
                continue;
            }
            let top = self.y;
            let mut open: Vec<&Slice> = Vec::new();
            let mut deepest = 0;
            for slice in slices {
                while open.last().is_some_and(|outer| outer.end() <= slice.start) {
                    open.pop();
                }
                self.slice(axis, slice, top + open.len() as f64 * ROW);
                deepest = deepest.max(open.len());
                open.push(slice);
            }
            // Of several by one name, which.
            let alike: Vec<_> = trace.names.iter().filter(|(_, other)| *other == name).collect();
            let name = match alike.iter().position(|(other, _)| **other == tid) {
                Some(n) if alike.len() > 1 => format!("{name} {}", n + 1),
                _ => name.clone(),
            };
            self.text(PLOT.start - 12.0, top + ROW / 2.0 + 4.0, "row", &name);
            self.y += (deepest + 1) as f64 * ROW + 6.0;
            self.line((24.0, self.y - 3.0), (PLOT.end, self.y - 3.0), "grid");
        }
    }

    /// Live bytes, the goal and the footprint over time.
    fn sizes(&mut self, samples: &[Sample], axis: &Axis) {
        let inside: Vec<_> = {
            // One before and one after, so that lines reach the edges.
            let first = samples.partition_point(|s| s.at < axis.0.start).saturating_sub(1);
            let last = samples.partition_point(|s| s.at <= axis.0.end) + 1;
            samples[first..last.min(samples.len())].to_vec()
        };
        let mib = |bytes: u64| bytes as f64 / (1 << 20) as f64;
        let most =
            inside.iter().map(|s| mib(s.footprint.max(s.live).max(s.goal.unwrap_or(0)))).fold(1.0, f64::max);
        let (top, bottom) = (self.y + 12.0, self.y + 12.0 + CHART);
        let (unit, height) = (step(most, 5.0), bottom - top);
        let y = |value: f64| bottom - value / (most * 1.05) * height;
        for n in 0..=(most * 1.05 / unit) as usize {
            let value = n as f64 * unit;
            self.line((PLOT.start, y(value)), (PLOT.end, y(value)), "grid");
            self.text(PLOT.start - 12.0, y(value) + 4.0, "row", &format!("{value} MiB"));
        }
        let points = |value: &dyn Fn(&Sample) -> Option<u64>, steps: bool| {
            let mut points = String::new();
            let mut before = None;
            for sample in &inside {
                let Some(value) = value(sample) else { continue };
                let (x, y) = (axis.x(sample.at), y(mib(value)));
                if let (true, Some(before)) = (steps, before) {
                    let _ = write!(points, "{x:.1},{before:.1} ");
                }
                let _ = write!(points, "{x:.1},{y:.1} ");
                before = Some(y);
            }
            points
        };
        self.svg.push_str("<g clip-path=\"url(#plot)\">\n");
        let live = points(&|s| Some(s.live), false);
        let ends = inside.first().zip(inside.last()).map(|(a, b)| (axis.x(a.at), axis.x(b.at)));
        if let Some((from, to)) = ends {
            let _ = writeln!(
                self.svg,
                r#"<polygon points="{from:.1},{bottom} {live}{to:.1},{bottom}" class="area"/>"#
            );
        }
        for (class, points) in [
            ("live", live),
            ("goal", points(&|s| s.goal, true)),
            ("footprint", points(&|s| Some(s.footprint), true)),
        ] {
            let _ = writeln!(self.svg, r#"<polyline points="{points}" class="{class}"/>"#);
        }
        self.svg.push_str("</g>\n");
        self.y = bottom + 6.0;
    }

    /// One panel, and in it the heap's size, and shaded a part that is enlarged elsewhere; where it ends.
    fn panel(&mut self, trace: &Trace, axis: &Axis, sizes: bool, shaded: Option<&Axis>) -> f64 {
        self.y += 18.0;
        let top = self.y;
        // The grid lies below all else, so its height must be known: drawn twice, kept once.
        let mut again = Picture { svg: String::new(), y: top };
        again.tracks(trace, axis);
        let height = again.y - top + if sizes { 12.0 + CHART } else { 0.0 };
        if let Some(part) = shaded {
            let (from, to) = (axis.x(part.0.start), axis.x(part.0.end));
            self.rect(from, top, to - from, height, r##"fill="#eceaf3""##);
        }
        self.times(axis, height);
        self.tracks(trace, axis);
        if sizes {
            self.sizes(&trace.samples, axis);
        }
        top + height
    }
}

/// From the top: the world, who leads, who allocates, who marks, who sweeps.
fn place(name: &str) -> usize {
    let order = ["world stopped", "besom-gc", "mutator", "besom-mark", "besom-sweep"];
    order.iter().position(|known| *known == name).unwrap_or(order.len())
}

const STYLE: &str = "\
text { font-family: 'Helvetica Neue', Helvetica, Arial, 'DejaVu Sans', sans-serif; font-size: 12px; fill: #2b2d42 }
.title { font-size: 19px; font-weight: bold }
.dim { fill: #5c6270; font-size: 13px }
.tick { fill: #5c6270; font-size: 11px; text-anchor: middle }
.row { text-anchor: end }
.on { font-size: 11px; text-anchor: middle }
.dark { fill: #ffffff }
.grid { stroke: #e3e5ea; stroke-width: 1 }
.lens { stroke: #b9bdc9; stroke-width: 1; stroke-dasharray: 3 3 }
.area { fill: #3d7ea6; opacity: 0.16 }
.live, .goal, .footprint { fill: none; stroke-width: 1.8; stroke-linejoin: round }
.live { stroke: #3d7ea6 }
.goal { stroke: #c8553d; stroke-dasharray: 6 4 }
.footprint { stroke: #8d99ae }
";

fn draw(trace: &Trace, title: &str, axis: &Axis, zoom: Option<(Axis, u64)>) -> String {
    let mut picture = Picture { svg: String::new(), y: 0.0 };
    let ms = |axis: &Axis| (axis.0.end - axis.0.start) as f64 / 1e6;
    let subtitle = format!(
        "{}, {:.0} ms of a run; times are milliseconds since the heap was made",
        trace.process,
        ms(axis)
    );
    picture.title(title, &subtitle);
    let shown =
        |axis: &Axis| trace.slices.iter().filter(|s| axis.shows(s)).map(|s| s.name.as_str()).collect();
    let names: BTreeSet<&str> = shown(axis);
    picture.legend(&names);
    let bottom = picture.panel(trace, axis, true, zoom.as_ref().map(|(part, _)| part));
    if let Some((part, number)) = zoom {
        let lens = picture.y + 40.0;
        for (ns, to) in [(part.0.start, PLOT.start), (part.0.end, PLOT.end)] {
            picture.line((axis.x(ns), bottom), (to, lens), "lens");
        }
        picture.y = lens - 6.0;
        picture.text(24.0, lens - 8.0, "dim", &format!("Cycle {number}"));
        let bottom = picture.panel(trace, &part, false, None);
        for x in [PLOT.start, PLOT.end] {
            picture.line((x, lens), (x, bottom), "lens");
        }
    }
    let height = picture.y + 18.0;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" width=\"{WIDTH}\" \
         height=\"{height:.0}\">\n<clipPath id=\"plot\"><rect x=\"{}\" width=\"{}\" height=\"{height:.0}\"/></clipPath>\n<style>\n{STYLE}</style>\n\
         <rect width=\"{WIDTH}\" height=\"{height:.0}\" fill=\"#ffffff\"/>\n{}</svg>\n",
        PLOT.start,
        PLOT.end - PLOT.start,
        picture.svg
    )
}

const USAGE: &str = "usage: timeline-svg FILE [--cycles FIRST LAST] [--zoom CYCLE] [--title TITLE] >PICTURE";

fn main() {
    let mut arguments = std::env::args().skip(1);
    let usage = || -> ! {
        eprintln!("{USAGE}");
        std::process::exit(64)
    };
    let (mut file, mut cycles, mut zoom, mut title) = (None, None, None, None);
    while let Some(argument) = arguments.next() {
        let mut next = || arguments.next().unwrap_or_else(|| usage());
        let number = |text: String| text.parse::<u64>().unwrap_or_else(|_| usage());
        match argument.as_str() {
            "--cycles" => cycles = Some((number(next()), number(next()))),
            "--zoom" => zoom = Some(number(next())),
            "--title" => title = Some(next()),
            _ if file.is_none() && !argument.starts_with('-') => file = Some(PathBuf::from(argument)),
            _ => usage(),
        }
    }
    let file = file.unwrap_or_else(|| usage());
    let trace = Trace::read(&file);
    let cycle = |number: u64| {
        let found = trace.slices.iter().find(|s| s.name == "cycle" && s.arg("number") == number);
        found.unwrap_or_else(|| {
            eprintln!("{}: no cycle {number}", file.display());
            std::process::exit(65)
        })
    };
    let axis = match cycles {
        Some((first, last)) => {
            let (from, to) = (cycle(first).start, cycle(last).end());
            let margin = (to.saturating_sub(from)) / 8;
            from.saturating_sub(margin)..to + margin
        }
        None => {
            let ends = trace.slices.iter().map(Slice::end).chain(trace.samples.iter().map(|s| s.at));
            let starts = trace.slices.iter().map(|s| s.start).chain(trace.samples.iter().map(|s| s.at));
            starts.min().unwrap_or(0)..ends.max().unwrap_or(0).max(1)
        }
    };
    let zoom = zoom.map(|number| {
        let cycle = cycle(number);
        // What is swept afterwards is part of the story.
        (Axis(cycle.start.saturating_sub(cycle.ns / 12)..cycle.end() + cycle.ns * 2 / 3), number)
    });
    let title = title.unwrap_or_else(|| file.display().to_string());
    print!("{}", draw(&trace, &title, &Axis(axis), zoom));
}
