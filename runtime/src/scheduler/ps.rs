//! How many Ps there are: they are made for those who attach, up to the limit, and go when there are more than that.

use super::{House, Inner, PId, Refused};

impl Inner {
    /// How many Ps there should be at most.
    pub(super) fn most_ps(&self) -> usize {
        if self.limit == 0 { self.attached } else { self.limit }
    }

    pub(super) fn is_surplus(&self) -> bool {
        self.total > self.most_ps()
    }

    pub(super) fn may_shrink(&self) -> bool {
        self.is_surplus() && !self.stopping && !self.marking
    }

    /// Makes Ps until there is one for each attached thread, or the limit is reached. At least one exists then.
    pub(super) fn create_ps(&mut self, house: &impl House) -> Result<(), Refused> {
        while self.total < self.most_ps().min(self.attached) {
            self.free.try_reserve(self.total + 1).map_err(|_| Refused::NoMemory)?;
            self.vacant.try_reserve(self.total + 1).map_err(|_| Refused::NoMemory)?;
            let p = self.vacant.pop().unwrap_or(PId(self.next_p));
            if !house.create_p(p) {
                if p.0 < self.next_p {
                    self.vacant.push(p);
                }
                // Fewer than wished for will do when the number is limited, but not none.
                return if self.limit != 0 && self.total > 0 { Ok(()) } else { Err(Refused::NoMemory) };
            }
            self.next_p = self.next_p.max(p.0 + 1);
            self.total += 1;
            self.free.push(p);
        }
        Ok(())
    }

    pub(super) fn destroy(&mut self, house: &impl House, p: PId) {
        house.destroy_p(p);
        self.total -= 1;
        self.vacant.push(p);
    }

    /// Takes a P back from who left it.
    pub(super) fn give_back(&mut self, house: &impl House, p: PId) {
        // A stopped world keeps its Ps, and so does one in which objects are marked: the surplus goes later.
        if self.may_shrink() {
            self.destroy(house, p);
        } else {
            self.free.push(p);
        }
    }

    /// Destroys idle Ps above the number that there should be. A stopped world keeps its Ps.
    pub(super) fn destroy_surplus(&mut self, house: &impl House) {
        while self.may_shrink() {
            let Some(p) = self.free.pop() else { return };
            self.destroy(house, p);
        }
    }
}
