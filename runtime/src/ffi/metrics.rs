//! Metrics: the registry as C has it, and the readers.

use super::{Status, heap, status};
use crate::heap::Heap;
use crate::metrics::{METRICS, Metrics, Reading};
use crate::status::{Error, Result};
use std::ffi::{CStr, c_char, c_int};
use std::{fmt, io, slice};

/// `besom_metric`.
#[repr(C)]
pub struct Metric {
    name: *const c_char,
    unit: *const c_char,
    description: *const c_char,
    kind: c_int,
    buckets: usize,
}

// SAFETY: the pointers are to constants.
unsafe impl Sync for Metric {}

static REGISTRY: [Metric; METRICS.len()] = {
    const NONE: *const c_char = std::ptr::null();
    let mut registry =
        [const { Metric { name: NONE, unit: NONE, description: NONE, kind: 0, buckets: 0 } }; METRICS.len()];
    let mut i = 0;
    while i < METRICS.len() {
        let metric = &METRICS[i];
        registry[i] = Metric {
            name: metric.name().as_ptr(),
            unit: metric.unit().as_ptr(),
            description: metric.description().as_ptr(),
            kind: metric.kind() as c_int,
            buckets: metric.buckets(),
        };
        i += 1;
    }
    registry
};

/// `besom_metric_value`.
#[repr(C)]
pub struct MetricValue {
    number: u64,
    sum: u64,
    counts: *mut u64,
    buckets: usize,
    bounds: *const u64,
}

/// Whether there is room for the buckets of metric `i`, or they are not asked for.
///
/// # Safety
/// `value` must be readable.
unsafe fn has_room(value: *const MetricValue, i: usize) -> bool {
    // SAFETY: the caller's promise.
    unsafe { (*value).counts.is_null() || (*value).buckets >= METRICS[i].buckets() }
}

/// Fills a value with what metric `i` says.
///
/// # Safety
/// `value` must be writable and have room.
unsafe fn fill(value: *mut MetricValue, i: usize, reading: &Reading<'_>) {
    let bounds = METRICS[i].bounds();
    // SAFETY: the caller's promise.
    unsafe {
        (*value).number = reading.number();
        (*value).sum = reading.sum();
        (*value).buckets = METRICS[i].buckets();
        (*value).bounds = if bounds.is_empty() { std::ptr::null() } else { bounds.as_ptr() };
        let mut to = (*value).counts;
        if !to.is_null() {
            reading.counts(|count| {
                to.write(count);
                to = to.add(1);
            });
        }
    }
}

/// `besom_metrics`.
///
/// # Safety
/// `h` must be null or a heap, `out` null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn besom_metrics(h: *mut Heap, out: *mut *const Metric) -> usize {
    // SAFETY: the caller's promise. The list is the same for every heap, so that none will do too.
    unsafe {
        let _ = heap(h, "besom_metrics");
        if !out.is_null() {
            out.write(REGISTRY.as_ptr());
        }
    }
    REGISTRY.len()
}

/// `besom_metric_read`.
///
/// # Safety
/// `h` must be null or a heap, `name` null or a string, `out` null or a value whose `counts` has the room it says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn besom_metric_read(
    h: *mut Heap,
    name: *const c_char,
    out: *mut MetricValue,
) -> Status {
    let read = || -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe {
            let heap = heap(h, "besom_metric_read")?;
            if name.is_null() || out.is_null() {
                return Err(Error::Invalid);
            }
            let name = CStr::from_ptr(name);
            let wanted = METRICS.iter().position(|metric| metric.name() == name).ok_or(Error::Invalid)?;
            if !has_room(out, wanted) {
                return Err(Error::Limit);
            }
            heap.read_metrics(|i, reading| {
                if i == wanted {
                    fill(out, i, &reading);
                }
            });
        }
        Ok(())
    };
    status(read())
}

/// `besom_metrics_read`.
///
/// # Safety
/// `h` must be null or a heap, `values` null or `n` values whose `counts` have the room they say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn besom_metrics_read(h: *mut Heap, values: *mut MetricValue, n: usize) -> Status {
    let read = || -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe {
            let heap = heap(h, "besom_metrics_read")?;
            if values.is_null() {
                return Err(Error::Invalid);
            }
            if n < METRICS.len() || !(0..METRICS.len()).all(|i| has_room(values.add(i), i)) {
                return Err(Error::Limit);
            }
            heap.read_metrics(|i, reading| fill(values.add(i), i, &reading));
        }
        Ok(())
    };
    status(read())
}

/// A caller's buffer, and how long the text is that goes into it, whether or not it fits.
struct Text<'a> {
    to: &'a mut [u8],
    len: usize,
}

impl Text<'_> {
    fn push(&mut self, bytes: &[u8]) {
        if let Some(to) = self.to.get_mut(self.len..self.len + bytes.len()) {
            to.copy_from_slice(bytes);
        }
        self.len += bytes.len();
    }
}

impl fmt::Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push(text.as_bytes());
        Ok(())
    }
}

impl io::Write for Text<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.push(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes a batch into the caller's buffer as `export` has it, and a nul behind it; how long it is is told, or, when it
/// does not fit, how much room it takes.
///
/// # Safety
/// As for [`besom_metrics_prometheus`].
unsafe fn write_text(
    heap: Result<&Heap>,
    buffer: *mut c_char,
    room: usize,
    length: *mut usize,
    export: impl Fn(&Metrics, &mut Text<'_>),
) -> Status {
    let write = || -> Result<()> {
        let heap = heap?;
        if length.is_null() || (buffer.is_null() && room != 0) {
            return Err(Error::Invalid);
        }
        let metrics = heap.metrics()?;
        // Measured first, so that a buffer that is too small is left as it is; the text of one batch is the same twice.
        let mut text = Text { to: &mut [], len: 0 };
        export(&metrics, &mut text);
        let len = text.len;
        // SAFETY: the caller's promise; the buffer's bytes are set before a slice is made of them.
        unsafe {
            if len >= room {
                length.write(len + 1);
                return Err(Error::Limit);
            }
            buffer.write_bytes(0, len + 1);
            let to = slice::from_raw_parts_mut(buffer.cast::<u8>(), len);
            export(&metrics, &mut Text { to, len: 0 });
            length.write(len);
        }
        Ok(())
    };
    status(write())
}

/// `besom_metrics_prometheus`.
///
/// # Safety
/// `h` must be null or a heap, `buffer` have `room` bytes, `length` be null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn besom_metrics_prometheus(
    h: *mut Heap,
    buffer: *mut c_char,
    room: usize,
    length: *mut usize,
) -> Status {
    // SAFETY: the caller's promise.
    unsafe {
        let heap = heap(h, "besom_metrics_prometheus");
        // A text cannot fail to be written; nor can the numbers be.
        write_text(heap, buffer, room, length, |metrics, text| {
            let _ = metrics.prometheus(text);
        })
    }
}

/// `besom_metrics_json`.
///
/// # Safety
/// As for [`besom_metrics_prometheus`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn besom_metrics_json(
    h: *mut Heap,
    buffer: *mut c_char,
    room: usize,
    length: *mut usize,
) -> Status {
    // SAFETY: the caller's promise.
    unsafe {
        let heap = heap(h, "besom_metrics_json");
        write_text(heap, buffer, room, length, |metrics, text| {
            let _ = metrics.json(&mut *text);
            text.push(b"\n");
        })
    }
}
