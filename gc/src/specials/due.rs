//! The due queue: finalizers and cleanups that wait for the VM to run them, first come, first served.
//!
//! It is a list through the entries themselves. The collector makes a list of its own and appends that when all of it is
//! ready: nobody takes an object that is not traced yet.

use besom_stats::sync;
use besom_stats::sync::raw::{AtomicUsize, Ordering::Relaxed};
use besom_stats::sync::{AtomicU64, Mutex, Ordering, lock};

/// A link of the list: which entry comes next. 0 is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item(u64);

/// No entry.
const NONE: Item = Item(0);

impl Item {
    /// A finalizer, by its index.
    pub fn finalizer(index: usize) -> Item {
        Item((index as u64) << 2 | 1)
    }

    /// A cleanup, by its index.
    pub fn cleanup(index: usize) -> Item {
        Item((index as u64) << 2 | 2)
    }

    /// The index of its entry, among those of its sort.
    pub fn index(self) -> usize {
        (self.0 >> 2) as usize
    }

    /// Whether it is a finalizer.
    pub fn is_finalizer(self) -> bool {
        self.0 & 3 == 1
    }
}

/// Where items keep their links.
pub trait Links {
    /// The link of an item.
    fn link(&self, item: Item) -> &AtomicU64;
}

/// A list of items; each is in one list at most.
///
/// - `head == NONE` exactly if `tail == NONE`, and then `count == 0`
pub struct List {
    head: Item,
    tail: Item,
    count: usize,
}

impl Default for List {
    fn default() -> List {
        List { head: NONE, tail: NONE, count: 0 }
    }
}

impl List {
    /// Adds an item at the end.
    pub fn push(&mut self, item: Item, links: &impl Links) {
        links.link(item).store(0, Ordering::Relaxed);
        self.append(List { head: item, tail: item, count: 1 }, links);
    }

    /// Whether it has no items.
    pub fn is_empty(&self) -> bool {
        self.head == NONE
    }

    /// Its items, in order. Nobody changes the list meanwhile.
    pub fn iter<'l>(&self, links: &'l impl Links) -> impl Iterator<Item = Item> + 'l {
        let mut at = self.head;
        std::iter::from_fn(move || {
            let item = (at != NONE).then_some(at)?;
            at = Item(links.link(item).load(Ordering::Relaxed));
            Some(item)
        })
    }

    fn append(&mut self, other: List, links: &impl Links) {
        if other.is_empty() {
            return;
        }
        if self.is_empty() {
            self.head = other.head;
        } else {
            links.link(self.tail).store(other.head.0, Ordering::Relaxed);
        }
        self.tail = other.tail;
        self.count += other.count;
    }

    fn pop(&mut self, links: &impl Links) -> Option<Item> {
        let item = (self.head != NONE).then_some(self.head)?;
        self.head = Item(links.link(item).load(Ordering::Relaxed));
        self.count -= 1;
        if self.head == NONE {
            self.tail = NONE;
        }
        Some(item)
    }
}

/// The queue of one heap.
#[derive(Default)]
pub struct Due {
    all: Mutex<All>,
    /// Its length, for those who only wonder.
    count: AtomicUsize,
}

/// The items, which are numbered as they come.
#[derive(Default)]
struct All {
    list: List,
    /// The number of the first, and so how many were taken.
    first: u64,
}

impl Due {
    /// Adds a list at the end.
    pub fn append(&self, list: List, links: &impl Links) {
        if list.is_empty() {
            return;
        }
        let mut all = lock(&self.all);
        all.list.append(list, links);
        self.count.store(all.list.count, Relaxed);
    }

    /// The number of the item that comes next.
    pub fn end(&self) -> u64 {
        let all = lock(&self.all);
        all.first + all.list.count as u64
    }

    /// Takes the first item, if its number is below `end`; it is the caller's then.
    pub fn take(&self, end: u64, links: &impl Links) -> Option<Item> {
        let mut all = lock(&self.all);
        let item = if all.first < end { all.list.pop(links) } else { None };
        all.first += u64::from(item.is_some());
        self.count.store(all.list.count, Relaxed);
        item
    }

    /// Keeps everybody out.
    pub fn hold(&self) -> sync::Held<'_> {
        sync::hold(&self.all)
    }

    /// Items in it.
    #[inline]
    pub fn len(&self) -> usize {
        self.count.load(Relaxed)
    }

    /// Whether nothing is due.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    struct Toy([AtomicU64; 8], [AtomicU64; 8]);

    impl Links for Toy {
        fn link(&self, item: Item) -> &AtomicU64 {
            if item.is_finalizer() { &self.0[item.index()] } else { &self.1[item.index()] }
        }
    }

    #[test]
    fn what_comes_first_is_taken_first() {
        let toy = Toy(Default::default(), Default::default());
        let (due, mut list) = (Due::default(), List::default());
        due.append(List::default(), &toy);
        assert_eq!((due.take(9, &toy), due.is_empty(), due.end()), (None, true, 0));
        let items = [Item::finalizer(0), Item::cleanup(0), Item::cleanup(5), Item::finalizer(3)];
        items[..2].iter().for_each(|item| list.push(*item, &toy));
        assert!(list.iter(&toy).eq(items[..2].iter().copied()));
        due.append(std::mem::take(&mut list), &toy);
        assert_eq!((due.take(0, &toy), due.take(1, &toy), due.len()), (None, Some(items[0]), 1));
        let end = due.end();
        items[2..].iter().for_each(|item| list.push(*item, &toy));
        due.append(list, &toy);
        assert_eq!((due.len(), due.end(), end), (3, 4, 2));
        assert_eq!((due.take(end, &toy), due.take(end, &toy)), (Some(items[1]), None), "what came later");
        items[2..].iter().for_each(|item| assert_eq!(due.take(u64::MAX, &toy), Some(*item)));
        assert_eq!((due.take(u64::MAX, &toy), due.len(), due.end()), (None, 0, 4));
    }
}
