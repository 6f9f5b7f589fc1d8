//! Objects as the model knows them: their shape, what stands in each word, which words are edges.
//!
//! Every word of an object that is no edge holds a pattern made of the object's number, or a decoy: a true address
//! in a place where the collector must not see a pointer. Patterns are odd and above all addresses, so that no kind
//! takes them for pointers.

use crate::rng::mix;
use besom::{Encoding, Heap, Kind, Mutator, Options, Tracer};
use besom_stats::sync::raw::{AtomicU64, Ordering::*};
use std::ffi::c_void;

/// Hides the edges of traced objects from everybody but their trace function.
const TRACED_MASK: u64 = 0x5a5a_0000_0000_a5a0;
/// Tiny objects are smaller than their block.
pub const TINY_BLOCK: usize = 16;

/// The defaults, but that the test names its roots.
pub fn precise() -> Options {
    Options { scan_native_stacks: 0, ..Options::default() }
}

/// How an object was allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// `alloc` of a kind.
    Plain(Kind),
    /// `new_object` of a layout, by its index in the set-up.
    Object(usize),
    /// `new_array` of one.
    Array(usize),
    /// `besom_ephemeron_new`; what it holds the model knows elsewhere.
    Ephemeron,
}

/// A registered layout.
#[derive(Clone, Debug)]
pub struct LayoutSpec {
    /// Its public number.
    pub number: u32,
    /// Bytes of an object, whole words.
    pub bytes: usize,
    /// Words that hold pointers.
    pub words: Vec<usize>,
}

/// What all threads of a history share.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The heap's encoding.
    pub encoding: Encoding,
    /// Layouts to choose from.
    pub layouts: Vec<LayoutSpec>,
}

/// An edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edge {
    /// The word it stands in.
    pub word: usize,
    /// The start of the object that it leads to; 0: none.
    pub target: usize,
    /// How far into it it points.
    pub inside: usize,
}

/// An object.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its number, unlike any other's.
    pub id: u64,
    /// How it was allocated.
    pub shape: Shape,
    /// Bytes asked for.
    pub bytes: usize,
    /// Its edges, by word.
    pub edges: Vec<Edge>,
    /// Addresses in words that are none.
    pub decoys: Vec<(usize, u64)>,
    /// Several threads know it: nobody writes it any more.
    pub frozen: bool,
}

/// Plain pointers.
pub const PLAIN: Encoding = Encoding { mask: 7, tag: 0, address: !7 };
/// NaN boxes.
pub const BOXED: Encoding =
    Encoding { mask: 0xffff << 48, tag: 0xfffc << 48, address: 0x0000_ffff_ffff_fff8 };

/// The trace function of traced objects: number, count, edges. Every third number has them as values. The thread whose
/// object it is may add an edge at this moment: first the edge, then the count.
///
/// # Safety
/// Called by the collector only.
pub unsafe extern "C" fn trace(tracer: *mut Tracer<'_>, object: *mut c_void, _: *mut c_void) {
    let words = object.cast::<u64>();
    // SAFETY: a traced object of three words or more, or one whose count is 0, since it was born zeroed.
    unsafe {
        let word = |at: usize| AtomicU64::from_ptr(words.add(at)).load(Acquire);
        let (id, count) = (word(0), word(1) as usize);
        if id.is_multiple_of(3) {
            (*tracer).trace_range(words.cast_const().add(2).cast(), count, Kind::Values);
        } else {
            for i in 0..count {
                let address = word(2 + i) ^ TRACED_MASK;
                (*tracer).trace(std::ptr::without_provenance(address as usize));
            }
        }
    }
}

fn pattern(id: u64, word: usize) -> u64 {
    0x7000_0000_0000_0001 | (mix(id ^ (word as u64) << 44) >> 4 & !7)
}

impl Setup {
    /// Registers layouts on a heap: some with memory of their own; with `many` also some beyond the 1,024 that have.
    pub fn new(heap: &Heap, encoding: Encoding, many: bool) -> Setup {
        let shapes: [(usize, &[u32]); 11] = [
            (8, &[0]),
            (16, &[8]),
            (24, &[0, 16]),
            (40, &[0, 8, 32]),
            (64, &[]),
            (72, &[64]),
            (600, &[0, 504, 512, 592]),
            (4096, &[8, 4088]),
            (12, &[]),
            (40960, &[0, 40952]),
            (40000, &[]),
        ];
        let register = |(bytes, offsets): (usize, &[u32])| LayoutSpec {
            number: heap.register_layout(bytes, offsets).expect("a layout"),
            bytes: bytes.next_multiple_of(8),
            words: offsets.iter().map(|o| *o as usize / 8).collect(),
        };
        let mut layouts: Vec<LayoutSpec> = shapes.into_iter().map(register).collect();
        if many {
            for n in 0..1024 {
                heap.register_layout(16 + n % 64 * 8, &[8]).expect("a layout");
            }
            layouts.extend(shapes.into_iter().map(register));
        }
        Setup { encoding, layouts }
    }

    /// A value that is a pointer.
    pub fn encode(&self, address: usize) -> u64 {
        address as u64 | self.encoding.tag
    }

    /// Whether a value can hold this address.
    pub fn encodes(&self, address: usize) -> bool {
        self.encode(address) & self.encoding.mask == self.encoding.tag
            && self.encode(address) & self.encoding.address == address as u64
    }

    /// A new object on the heap; `None` when memory is short. It must be rooted before the next safepoint. `size` is
    /// in bytes for kinds, in elements for arrays.
    pub fn alloc(&self, m: &mut Mutator<'_>, id: u64, shape: Shape, size: usize) -> Option<(usize, Node)> {
        let (object, bytes) = match shape {
            Shape::Plain(kind) => (m.alloc(size, kind)?, size),
            Shape::Object(layout) => {
                let layout = &self.layouts[layout];
                (m.new_object(layout.number).expect("a registered layout")?, layout.bytes)
            }
            Shape::Array(layout) => {
                let layout = &self.layouts[layout];
                (m.new_array(layout.number, size).expect("a registered layout")?, layout.bytes * size)
            }
            Shape::Ephemeron => unreachable!("they are made by Model::ephemeron"),
        };
        let address = object.as_ptr().expose_provenance();
        // SAFETY: the object has these bytes.
        let content = unsafe { std::slice::from_raw_parts(object.as_ptr(), bytes) };
        if let Some(at) = content.iter().position(|b| *b != 0) {
            panic!("{shape:?} of {bytes} bytes at {address:#x}: byte {at} is {:#x} when new", content[at]);
        }
        let align = match shape {
            Shape::Plain(Kind::NoScan) if (1..TINY_BLOCK).contains(&bytes) => {
                1 << (bytes | 8).trailing_zeros()
            }
            _ if bytes < 16 => 8,
            Shape::Object(_) if bytes == 24 => 8,
            _ => 16,
        };
        assert_eq!(address % align, 0, "{shape:?} of {bytes} bytes at {address:#x}: alignment");
        let node = Node { id, shape, bytes, edges: Vec::new(), decoys: Vec::new(), frozen: false };
        for word in 0..bytes / 8 {
            // SAFETY: a word of the new object.
            unsafe { write(address, word, self.plain_word(&node, word)) };
        }
        for at in self.tail(&node) {
            // SAFETY: a byte of the new object.
            unsafe { object.as_ptr().add(at).write(tail_byte(&node, at)) };
        }
        Some((address, node))
    }

    /// Bytes behind the last whole word that hold a pattern. Elsewhere they stay zero: they would be part of a
    /// scanned word.
    fn tail(&self, node: &Node) -> std::ops::Range<usize> {
        match node.shape {
            Shape::Plain(Kind::NoScan) => node.bytes / 8 * 8..node.bytes,
            _ => 0..0,
        }
    }

    /// What stands in a word that is neither edge nor decoy.
    fn plain_word(&self, node: &Node, word: usize) -> u64 {
        match node.shape {
            Shape::Plain(Kind::Traced) if word == 0 => node.id,
            Shape::Plain(Kind::Traced) if word == 1 => node.edges.len() as u64,
            Shape::Object(layout) | Shape::Array(layout) => {
                let layout = &self.layouts[layout];
                let is_pointer = layout.words.contains(&(word % (layout.bytes / 8)));
                if is_pointer { 0 } else { pattern(node.id, word) }
            }
            Shape::Plain(_) | Shape::Ephemeron => pattern(node.id, word),
        }
    }

    /// A word of the object where an edge can stand.
    pub fn edge_word(&self, node: &Node, choice: u64) -> Option<usize> {
        let words = node.bytes / 8;
        match node.shape {
            Shape::Plain(Kind::Conservative | Kind::Values) => {
                (words > 1).then(|| 1 + choice as usize % (words - 1))
            }
            Shape::Plain(Kind::Traced) => {
                let most = words.checked_sub(2)?.min(node.edges.len() + 1);
                (most > 0).then(|| 2 + choice as usize % most)
            }
            Shape::Plain(_) | Shape::Ephemeron => None,
            Shape::Object(layout) | Shape::Array(layout) => {
                let layout = &self.layouts[layout];
                let each = layout.bytes / 8;
                let pointers = words / each * layout.words.len();
                let n = (choice as usize).checked_rem(pointers)?;
                Some(n / layout.words.len() * each + layout.words[n % layout.words.len()])
            }
        }
    }

    /// A word of the object where an address is no pointer.
    fn decoy_word(&self, node: &Node, choice: u64) -> Option<usize> {
        let word = (choice as usize).checked_rem(node.bytes / 8)?;
        let free = match node.shape {
            Shape::Plain(Kind::Conservative) | Shape::Ephemeron => false,
            Shape::Plain(Kind::Values) => word > 0,
            Shape::Plain(Kind::Traced) => word >= 2 + node.edges.len(),
            Shape::Plain(_) => true,
            Shape::Object(_) | Shape::Array(_) => self.plain_word(node, word) != 0,
        };
        (free && node.edges.iter().all(|e| e.word != word)).then_some(word)
    }

    /// Whether an edge of this object may lead to this address.
    pub fn can_hold(&self, node: &Node, address: usize) -> bool {
        match node.shape {
            Shape::Plain(Kind::Values) => self.encodes(address),
            Shape::Plain(Kind::Traced) => !node.id.is_multiple_of(3) || self.encodes(address),
            _ => true,
        }
    }

    /// Whether edges of this object may point into the middle of another.
    pub fn points_inside(&self, node: &Node) -> bool {
        match node.shape {
            Shape::Plain(Kind::Conservative) => true,
            Shape::Plain(Kind::Traced) => !node.id.is_multiple_of(3),
            _ => false,
        }
    }

    fn edge_value(&self, node: &Node, edge: &Edge) -> u64 {
        let address = if edge.target == 0 { 0 } else { edge.target + edge.inside };
        match node.shape {
            Shape::Plain(Kind::Values) => self.encode(address),
            Shape::Plain(Kind::Traced) if node.id.is_multiple_of(3) => self.encode(address),
            Shape::Plain(Kind::Traced) => address as u64 ^ TRACED_MASK,
            _ => address as u64,
        }
    }

    /// Whether edges of this object stand in a form that only its trace function knows.
    fn hides_edges(&self, node: &Node) -> bool {
        node.shape == Shape::Plain(Kind::Traced) && !node.id.is_multiple_of(3)
    }

    /// Sets an edge of the object at `address`.
    pub fn set_edge(&self, m: &mut Mutator<'_>, address: usize, node: &mut Node, edge: Edge) {
        assert!(!node.frozen, "the model writes a frozen object");
        node.decoys.retain(|d| d.0 != edge.word);
        let old = node.edges.iter_mut().find(|e| e.word == edge.word);
        let lost = old.as_ref().map_or(0, |old| old.target);
        match old {
            Some(old) => *old = edge,
            None => node.edges.push(edge),
        }
        let object = std::ptr::with_exposed_provenance_mut::<u64>(address);
        // SAFETY: words of an object that the model holds, and a word of this function's.
        unsafe {
            if self.hides_edges(node) {
                // What is overwritten must be shown to the store in a form that it can read.
                let mut shown = lost as u64;
                m.write(std::ptr::null(), &raw mut shown, 0);
            }
            m.write(object.cast(), object.add(edge.word), self.edge_value(node, &edge));
            if node.shape == Shape::Plain(Kind::Traced) {
                m.write(object.cast(), object.add(1), node.edges.len() as u64);
            }
        }
    }

    /// Puts an address where it is none.
    pub fn set_decoy(&self, address: usize, node: &mut Node, choice: u64, decoy: usize) {
        assert!(!node.frozen, "the model writes a frozen object");
        let Some(word) = self.decoy_word(node, choice) else { return };
        let plain_value =
            node.shape == Shape::Plain(Kind::Values) && self.encodes(decoy) && self.encoding.tag == 0;
        let value = decoy as u64 | u64::from(plain_value);
        node.decoys.retain(|d| d.0 != word);
        node.decoys.push((word, value));
        // SAFETY: a word of an object that the model holds.
        unsafe { write(address, word, value) };
    }

    /// Compares the object at `address` with what the model knows of it.
    pub fn check(&self, address: usize, node: &Node) {
        let compare = |word: usize, expected: u64, what: &str| {
            // SAFETY: a word of an object that the model holds.
            let found =
                unsafe { std::ptr::with_exposed_provenance::<u64>(address).add(word).read_unaligned() };
            assert!(
                found == expected,
                "object {:#x} at {address:#x}, {:?} of {} bytes: {what} in word {word} is {found:#x}, not {expected:#x}",
                node.id,
                node.shape,
                node.bytes
            );
        };
        for edge in &node.edges {
            compare(edge.word, self.edge_value(node, edge), "the edge");
        }
        for (word, value) in &node.decoys {
            compare(*word, *value, "the decoy");
        }
        let words = if node.shape == Shape::Ephemeron { 0 } else { node.bytes / 8 };
        let mut word = 0;
        while word < words {
            let known = node.edges.iter().any(|e| e.word == word) || node.decoys.iter().any(|d| d.0 == word);
            if !known {
                compare(word, self.plain_word(node, word), "the pattern");
            }
            // All words of small objects, both ends and samples of large ones.
            word += if word < 32 || word + 93 > words { 1 } else { 61 };
        }
        for at in self.tail(node) {
            // SAFETY: a byte of an object that the model holds.
            let found = unsafe { std::ptr::with_exposed_provenance::<u8>(address + at).read_volatile() };
            let expected = tail_byte(node, at);
            assert!(
                found == expected,
                "object {:#x} at {address:#x}: byte {at} is {found:#x}, not {expected:#x}",
                node.id
            );
        }
    }
}

fn tail_byte(node: &Node, at: usize) -> u8 {
    pattern(node.id, at).to_le_bytes()[2] | 1
}

/// A store without a barrier: into a new object, or of what is no pointer over what is none. A marker may read the word.
///
/// # Safety
/// The word must be one of an object that no other thread of the program uses.
unsafe fn write(address: usize, word: usize, value: u64) {
    // SAFETY: the caller's promise.
    unsafe {
        let at = std::ptr::with_exposed_provenance_mut::<u64>(address).add(word);
        if at.is_aligned() {
            AtomicU64::from_ptr(at).store(value, Relaxed)
        } else {
            at.write_unaligned(value)
        }
    }
}

impl Node {
    /// Where its slot starts: tiny objects share one.
    pub fn slot(&self, address: usize) -> usize {
        match self.shape {
            Shape::Plain(Kind::NoScan) if self.bytes < TINY_BLOCK => address & !(TINY_BLOCK - 1),
            _ => address,
        }
    }

    /// Its kind's numbers in a walk: pointer-free arrays may be shown as what they are or as what they were.
    pub fn walk_kinds(&self) -> &'static [u32] {
        match self.shape {
            Shape::Plain(Kind::NoScan) => &[0],
            Shape::Plain(Kind::Conservative) => &[1],
            Shape::Plain(Kind::Values) => &[2],
            Shape::Plain(Kind::Traced) => &[3],
            _ => &[4, 0],
        }
    }
}
