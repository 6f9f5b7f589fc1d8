//! Roots of one thread, of every sort that there is, and what the model knows of them.

use crate::c;
use crate::objects::Setup;
use besom::{HandleRef, Heap, Kind, Mutator};
use besom_stats::sync::raw::{AtomicU64, Ordering::Relaxed};
use std::ffi::{c_int, c_void};

const RANGE: usize = 12;
const STACK: usize = 24;
const FRAME: usize = 6;

/// A root that the collector reads as words.
struct Words {
    words: Box<[AtomicU64]>,
    /// Where each leads; 0: nowhere.
    targets: Vec<usize>,
}

impl Words {
    fn new(n: usize) -> Words {
        Words { words: (0..n).map(|_| AtomicU64::new(0)).collect(), targets: vec![0; n] }
    }

    fn start(&self) -> *mut c_void {
        self.words.as_ptr().cast_mut().cast()
    }

    /// A plain store: the collector reads the words at the thread's safepoints only.
    fn set(&mut self, at: usize, target: usize, word: u64) {
        self.targets[at] = target;
        self.words[at].store(word, Relaxed);
    }

    /// A store into a registered range, which the collector may read at any time, and once in a cycle.
    fn set_watched(&mut self, m: &mut Mutator<'_>, at: usize, target: usize, word: u64) {
        self.targets[at] = target;
        // SAFETY: a word of a range that this thread alone writes.
        unsafe { m.write(std::ptr::null(), self.words[at].as_ptr(), word) };
    }
}

/// The roots. Range and handles stay when the thread detaches; stack and frame do not.
///
/// - stack words at and above `depth` hold what was popped: no roots
pub struct Roots<'h> {
    heap: &'h Heap,
    /// Handles, and where they lead.
    pub handles: Vec<(HandleRef<'h>, usize)>,
    range: Words,
    range_kind: Kind,
    stack: Words,
    stack_top: Box<AtomicU64>,
    stack_kind: Kind,
    depth: usize,
    locals: Words,
    _slots: Box<[*const u64]>,
    frame: Box<c::Frame>,
}

fn is_conservative(kind: Kind) -> bool {
    matches!(kind, Kind::Conservative)
}

impl<'h> Roots<'h> {
    /// No roots yet; `conservative` says how the range and the stack are read.
    pub fn new(heap: &'h Heap, conservative: bool) -> Roots<'h> {
        let (range, locals) = (Words::new(RANGE), Words::new(FRAME));
        let (range_kind, stack_kind) = if conservative {
            (Kind::Conservative, Kind::Values)
        } else {
            (Kind::Values, Kind::Conservative)
        };
        let slots: Box<[*const u64]> = locals.words.iter().map(|w| w.as_ptr().cast_const()).collect();
        let frame = c::Frame { previous: std::ptr::null(), count: FRAME, slots: slots.as_ptr() };
        // SAFETY: the range is removed when this is dropped.
        let status = unsafe { c::besom_roots_add(c::heap(heap), range.start(), RANGE, range_kind as c_int) };
        assert_eq!(status, 0, "besom_roots_add");
        Roots {
            heap,
            handles: Vec::new(),
            range,
            range_kind,
            stack: Words::new(STACK),
            stack_top: Box::new(AtomicU64::new(0)),
            stack_kind,
            depth: 0,
            locals,
            _slots: slots,
            frame: Box::new(frame),
        }
    }

    fn publish_depth(&self) {
        self.stack_top.store((self.stack.start().expose_provenance() + self.depth * 8) as u64, Relaxed);
    }

    /// Shows stack and frame to the mutator, which was just attached.
    pub fn attach(&mut self, m: &Mutator<'h>) {
        self.publish_depth();
        // SAFETY: stack and frame live until `detach`; the thread is the mutator's.
        unsafe {
            let top = self.stack_top.as_ptr().cast::<*mut c_void>();
            let status = c::besom_stack_set(m.as_raw(), self.stack.start(), top, self.stack_kind as c_int);
            assert_eq!(status, 0, "besom_stack_set");
            (*m.as_raw().cast::<c::MutatorPrefix>()).frames = &raw const *self.frame;
        }
    }

    /// The mutator goes: so does what stack and frame held.
    pub fn detach(&mut self) {
        self.depth = 0;
        self.publish_depth();
        self.stack.targets.fill(0);
        for at in 0..FRAME {
            self.locals.set(at, 0, 0);
        }
    }

    /// Makes an object a root, in the place that `choice` names. `inside`: how far into it the root may point.
    pub fn hold(&mut self, m: &mut Mutator<'h>, setup: &Setup, target: usize, inside: usize, choice: u64) {
        let at = (choice >> 8) as usize;
        let place =
            |kind: Kind| if is_conservative(kind) { (target + inside) as u64 } else { setup.encode(target) };
        let fits = |kind: Kind| is_conservative(kind) || setup.encodes(target);
        match choice % 8 {
            0 | 1 if fits(self.range_kind) => {
                self.range.set_watched(m, at % RANGE, target, place(self.range_kind));
            }
            2 | 3 if fits(self.stack_kind) => {
                if self.depth == STACK {
                    self.pop(at % STACK);
                }
                self.stack.set(self.depth, target, place(self.stack_kind));
                self.depth += 1;
                self.publish_depth();
            }
            4 => self.locals.set(at % FRAME, target, (target + inside) as u64),
            5 if !self.handles.is_empty() => {
                let at = at % self.handles.len();
                self.handles[at].0.set(std::ptr::with_exposed_provenance_mut(target));
                self.handles[at].1 = target;
            }
            _ => {
                let object = std::ptr::with_exposed_provenance_mut(target);
                self.handles.push((m.handle(object).expect("a handle"), target));
            }
        }
    }

    fn pop(&mut self, depth: usize) {
        self.depth = depth;
        self.stack.targets[depth..].fill(0);
        self.publish_depth();
    }

    /// Lets one root go.
    pub fn drop_one(&mut self, m: &mut Mutator<'h>, choice: u64) {
        let at = (choice >> 8) as usize;
        match choice % 8 {
            0 => self.range.set_watched(m, at % RANGE, 0, 0),
            1 => self.pop(at % (self.depth + 1)),
            2 => self.locals.set(at % FRAME, 0, 0),
            _ if !self.handles.is_empty() => {
                let at = at % self.handles.len();
                drop(self.handles.swap_remove(at));
            }
            _ => {}
        }
    }

    /// Where the roots lead.
    pub fn targets(&self) -> impl Iterator<Item = usize> + '_ {
        let words = [&self.range, &self.stack, &self.locals].into_iter().flat_map(|w| &w.targets);
        words.chain(self.handles.iter().map(|(_, t)| t)).copied().filter(|t| *t != 0)
    }

    /// Compares handles with what the model knows of them.
    pub fn check(&self) {
        for (handle, target) in &self.handles {
            assert_eq!(handle.get().addr(), *target, "what a handle holds");
        }
    }
}

impl Drop for Roots<'_> {
    fn drop(&mut self) {
        // SAFETY: registered in `new`.
        let status = unsafe { c::besom_roots_remove(c::heap(self.heap), self.range.start()) };
        assert_eq!(status, 0, "besom_roots_remove");
    }
}
