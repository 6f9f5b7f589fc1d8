//! A mutator's barrier buffer: words that it overwrote while objects are marked, and that the collector does not know yet.

/// Words that are kept until they are handed in. Higher: the last handshake has more to mark, and a store that hands in takes
/// longer, 10 to 17 us for 64 of them that lead to what no cache has. Lower: each store pays more of what handing in costs, some 100 ns.
pub const OVERWRITTEN_MOST: usize = 32;

/// The words. Only their thread touches them, while it runs; empty unless it does.
pub struct Overwritten<const MOST: usize = OVERWRITTEN_MOST> {
    len: usize,
    words: [usize; MOST],
}

impl<const MOST: usize> Default for Overwritten<MOST> {
    fn default() -> Self {
        Overwritten { len: 0, words: [0; MOST] }
    }
}

impl<const MOST: usize> Overwritten<MOST> {
    /// Forgets all: a thread sits down.
    pub fn init(&mut self) {
        self.len = 0;
    }

    /// Whether there is nothing to hand in.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Keeps a word. True: all are to be handed in now, for lack of room.
    #[inline]
    pub fn keep(&mut self, word: usize) -> bool {
        self.words[self.len] = word;
        self.len += 1;
        self.len == MOST
    }

    /// The words that are kept.
    pub fn words(&self) -> &[usize] {
        &self.words[..self.len]
    }

    /// Shows all words to `mark`, and then forgets them.
    pub fn hand_in(&mut self, mark: impl FnMut(usize)) {
        self.words[..self.len].iter().copied().for_each(mark);
        self.len = 0;
    }
}
