//! The model of one thread's objects: what it must find again, and what must be gone.

use crate::c;
use crate::objects::{Edge, Node, Setup, Shape};
use crate::roots::Roots;
use besom::{HandleRef, Heap, Kind, Mutator};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Objects that one thread hands to another: from then on nobody writes them.
pub struct Parcel<'h> {
    /// Leads to the first of them.
    pub handle: HandleRef<'h>,
    /// Where it leads.
    pub target: usize,
    /// All that it reaches.
    pub nodes: Vec<(usize, Node)>,
}

/// What one thread knows.
///
/// - `nodes` has at least the objects that `roots` reach; others may be gone, and their addresses used again
pub struct Model<'h> {
    /// Encoding and layouts.
    pub setup: &'h Setup,
    /// The thread's roots.
    pub roots: Roots<'h>,
    nodes: HashMap<usize, Node>,
    /// Keys and values of ephemerons, which are nodes; 0 when they are closed.
    pub ephemerons: HashMap<usize, (usize, usize)>,
    next_id: u64,
}

impl<'h> Model<'h> {
    /// No objects. `number` tells threads apart.
    pub fn new(heap: &'h Heap, setup: &'h Setup, number: u64) -> Model<'h> {
        let roots = Roots::new(heap, number.is_multiple_of(2));
        Model { setup, roots, nodes: HashMap::new(), ephemerons: HashMap::new(), next_id: number << 40 }
    }

    /// Objects that the model has not forgotten.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether it knows none.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    fn node(&self, address: usize) -> &Node {
        self.nodes.get(&address).unwrap_or_else(|| panic!("the model lost {address:#x}, which it reaches"))
    }

    /// Allocates and roots; the address, or `None` when memory is short.
    pub fn alloc(&mut self, m: &mut Mutator<'h>, shape: Shape, size: usize, root: u64) -> Option<usize> {
        self.next_id += 1;
        let (address, node) = self.setup.alloc(m, self.next_id, shape, size)?;
        let inside = inside(&node, root >> 32);
        self.nodes.insert(address, node);
        self.roots.hold(m, self.setup, address, inside, root);
        Some(address)
    }

    /// Makes an ephemeron and roots it; `None` when memory is short.
    pub fn ephemeron(&mut self, m: &mut Mutator<'h>, key: usize, value: usize, root: u64) -> Option<usize> {
        self.next_id += 1;
        let [k, v] = [key, value].map(std::ptr::with_exposed_provenance_mut);
        // SAFETY: the mutator is this thread's; the key is an object.
        let address = unsafe { c::besom_ephemeron_new(m.as_raw(), k, v) }.expose_provenance();
        if address == 0 {
            return None;
        }
        let (edges, decoys) = (Vec::new(), Vec::new());
        let node =
            Node { id: self.next_id, shape: Shape::Ephemeron, bytes: 16, edges, decoys, frozen: false };
        self.nodes.insert(address, node);
        self.ephemerons.insert(address, (key, value));
        self.hold(m, address, root);
        Some(address)
    }

    /// Makes an object a root.
    pub fn hold(&mut self, m: &mut Mutator<'h>, address: usize, root: u64) {
        let inside = inside(self.node(address), root >> 32);
        self.roots.hold(m, self.setup, address, inside, root);
    }

    /// An object that a root reaches, by some steps along edges.
    pub fn pick(&self, mut choice: u64) -> Option<usize> {
        let count = self.roots.targets().count();
        let mut at = self.roots.targets().nth((choice as usize).checked_rem(count)?)?;
        for _ in 0..choice >> 60 {
            choice = crate::rng::mix(choice);
            let edges = &self.node(at).edges;
            let Some(n) = (choice as usize).checked_rem(edges.len()) else { break };
            if edges[n].target == 0 {
                break;
            }
            at = edges[n].target;
        }
        Some(at)
    }

    /// Sets an edge between two objects, if the first can have one.
    pub fn link(&mut self, m: &mut Mutator<'h>, from: usize, to: usize, choice: u64) {
        let target = self.node(to);
        let inside = inside(target, choice >> 32);
        let Some(node) = self.nodes.get_mut(&from) else { panic!("the model lost {from:#x}") };
        let Some(word) = self.setup.edge_word(node, choice) else { return };
        if node.frozen || !self.setup.can_hold(node, to) {
            return;
        }
        let inside = if self.setup.points_inside(node) { inside } else { 0 };
        self.setup.set_edge(m, from, node, Edge { word, target: to, inside });
    }

    /// Clears an edge.
    pub fn unlink(&mut self, m: &mut Mutator<'h>, from: usize, choice: u64) {
        let Some(node) = self.nodes.get_mut(&from) else { panic!("the model lost {from:#x}") };
        let Some(n) = (choice as usize).checked_rem(node.edges.len()) else { return };
        if !node.frozen {
            let edge = Edge { target: 0, inside: 0, ..node.edges[n] };
            self.setup.set_edge(m, from, node, edge);
        }
    }

    /// Puts the address of an object into a word of another where it is none.
    pub fn decoy(&mut self, from: usize, of: usize, choice: u64) {
        let Some(node) = self.nodes.get_mut(&from) else { panic!("the model lost {from:#x}") };
        if !node.frozen {
            self.setup.set_decoy(from, node, choice, of);
        }
    }

    /// Compares an object with the heap.
    pub fn check(&self, heap: &Heap, address: usize) {
        let node = self.node(address);
        self.setup.check(address, node);
        let slot = node.slot(address);
        assert_eq!(
            heap.base(address + inside(node, node.id)).map(|b| b.addr()),
            Some(slot),
            "base of {node:?}"
        );
        assert!(heap.size(slot) >= node.bytes, "size {} of {node:?} at {address:#x}", heap.size(slot));
    }

    /// All that is reached from there. Ephemerons are looked at again and again, until nothing changes: slow, and plain.
    pub fn closure(&self, from: impl Iterator<Item = usize>) -> HashSet<usize> {
        let mut queue: Vec<usize> = from.collect();
        let mut seen: HashSet<usize> = queue.iter().copied().collect();
        loop {
            while let Some(address) = queue.pop() {
                for edge in &self.node(address).edges {
                    if edge.target != 0 && seen.insert(edge.target) {
                        queue.push(edge.target);
                    }
                }
            }
            for (ephemeron, (key, value)) in &self.ephemerons {
                let kept = *value != 0 && seen.contains(ephemeron) && seen.contains(key);
                if kept && seen.insert(*value) {
                    queue.push(*value);
                }
            }
            if queue.is_empty() {
                return seen;
            }
        }
    }

    /// Closes the ephemerons whose keys are not among these objects.
    pub fn close_ephemerons(&mut self, alive: &HashSet<usize>) {
        for (ephemeron, contents) in &mut self.ephemerons {
            if alive.contains(ephemeron) && !alive.contains(&contents.0) {
                *contents = (0, 0);
            }
        }
    }

    /// Forgets all but these objects.
    pub fn retain(&mut self, alive: &HashSet<usize>) {
        self.nodes.retain(|address, _| alive.contains(address));
        self.ephemerons.retain(|address, _| alive.contains(address));
    }

    /// Compares all that is reached with the heap, and forgets the rest.
    pub fn check_all(&mut self) {
        self.forget();
        self.roots.check();
        for (address, node) in &self.nodes {
            self.setup.check(*address, node);
        }
    }

    /// Forgets what no root reaches.
    pub fn forget(&mut self) {
        let reached = self.closure(self.roots.targets());
        self.retain(&reached);
    }

    /// What the heap must hold for this model after [`Self::forget`].
    pub fn objects(&self) -> impl Iterator<Item = (usize, &Node)> {
        self.nodes.iter().map(|(address, node)| (*address, node))
    }

    /// Freezes what an object reaches, for another thread; `None` when it is too much.
    pub fn pack(&mut self, m: &mut Mutator<'h>, target: usize, most: usize) -> Option<Parcel<'h>> {
        let reached = self.closure(std::iter::once(target));
        if reached.len() > most {
            return None;
        }
        let handle = m.handle(std::ptr::with_exposed_provenance_mut(target)).ok()?;
        let mut nodes = Vec::with_capacity(reached.len());
        for address in reached {
            let node = self.nodes.get_mut(&address)?;
            node.frozen = true;
            nodes.push((address, node.clone()));
        }
        Some(Parcel { handle, target, nodes })
    }

    /// Takes over what another thread packed.
    pub fn unpack(&mut self, parcel: Parcel<'h>) {
        for (address, node) in &parcel.nodes {
            self.setup.check(*address, node);
        }
        self.nodes.extend(parcel.nodes);
        self.roots.handles.push((parcel.handle, parcel.target));
    }
}

/// How far into an object a pointer may lead so that it still leads to it.
fn inside(node: &Node, choice: u64) -> usize {
    (choice as usize).checked_rem(node.bytes).unwrap_or(0)
}

/// The slots that the heap must have, no more and no less: bytes asked for and kinds, by address.
#[derive(Default)]
pub struct Expected {
    slots: BTreeMap<usize, (usize, &'static [u32])>,
}

impl Expected {
    /// Adds objects.
    pub fn add<'a>(&mut self, objects: impl Iterator<Item = (usize, &'a Node)>) {
        for (address, node) in objects {
            self.slots.insert(node.slot(address), (node.bytes, node.walk_kinds()));
        }
    }

    /// Slots.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Compares with a walk. `precise`: nothing else may be there.
    pub fn compare(&self, m: &mut Mutator<'_>, precise: bool) {
        let heap = m.heap();
        let mut found: BTreeMap<usize, (usize, u32)> = BTreeMap::new();
        let mut last = 0;
        let mut disorder = None;
        // SAFETY: nothing in it allocates on the heap or waits for a mutator.
        unsafe {
            m.walk(|object, bytes, kind| {
                if object.addr() <= last {
                    disorder = Some((last, object.addr()));
                }
                last = object.addr();
                found.insert(object.addr(), (bytes, kind));
            })
        };
        assert_eq!(disorder, None, "the walk goes up");
        for (slot, (bytes, kinds)) in &self.slots {
            let Some((usable, kind)) = found.remove(slot) else {
                panic!("the slot {slot:#x} of {bytes} bytes is reachable and not in the walk");
            };
            assert!(usable >= *bytes, "slot {slot:#x}: {usable} usable bytes of {bytes}");
            assert!(kinds.contains(&kind), "slot {slot:#x}: kind {kind}, not {kinds:?}");
            assert_eq!(heap.size(*slot), usable, "slot {slot:#x}: the walk's size");
        }
        if precise && let Some((slot, (bytes, kind))) = found.first_key_value() {
            panic!(
                "{} slots are in the walk that nothing reaches; the first: {slot:#x}, {bytes} bytes, kind {kind}",
                found.len()
            );
        }
    }
}

/// A size of an object: most are small.
pub fn size(choice: u64) -> usize {
    let n = (choice >> 16) as usize;
    match choice % 64 {
        0..8 => n % 16,
        8..40 => n % 136,
        40..54 => n % 1024,
        54..61 => n % 8192,
        61 | 62 => n % (34 << 10),
        _ => n % (200 << 10),
    }
}

/// A shape, and its size.
pub fn shape(setup: &Setup, choice: u64) -> (Shape, usize) {
    let layout = (choice >> 8) as usize % setup.layouts.len();
    match choice % 8 {
        0 | 1 => (Shape::Plain(Kind::NoScan), size(choice >> 4)),
        2 => (Shape::Plain(Kind::Conservative), size(choice >> 4)),
        3 => (Shape::Plain(Kind::Values), size(choice >> 4)),
        4 => match size(choice >> 4) {
            // Its trace function reads two words.
            small @ 0..16 => (Shape::Plain(Kind::Traced), 16 + small),
            bytes => (Shape::Plain(Kind::Traced), bytes),
        },
        5 | 6 => {
            let layout = match setup.layouts[layout].bytes {
                // Large ones seldom.
                4096.. if choice >> 40 & 7 != 0 => layout % 4,
                _ => layout,
            };
            (Shape::Object(layout), 1)
        }
        _ => {
            let bytes = setup.layouts[layout].bytes;
            (Shape::Array(layout), size(choice >> 20) / bytes)
        }
    }
}
