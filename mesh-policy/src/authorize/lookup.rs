//! An immutable map from byte strings to numbers, built once and read on the request path.
//!
//! The standard map draws a random seed, which would make two compilations of one model differ, and its
//! keyed hash costs more than the rest of a decision. Keys come from policies, so a flood of colliding keys
//! could only be written by whoever may write the policy anyway. Open addressing at most half full; a probe
//! ends at the first free slot.

/// Marks a free slot.
const FREE: u32 = u32::MAX;
/// An odd multiplier with well spread bits: the fraction of the golden ratio.
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

/// The map.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lookup {
    /// Tag (high half of the hash) and index of the entry; a power of two long, or empty.
    slots: Box<[(u32, u32)]>,
    entries: Box<[(Box<[u8]>, u32)]>,
}

impl Lookup {
    /// Builds the map. Of equal keys the first stays.
    pub(crate) fn build(entries: impl IntoIterator<Item = (Box<[u8]>, u32)>) -> Self {
        let entries: Box<[_]> = entries.into_iter().collect();
        if entries.is_empty() {
            return Self::default();
        }
        let mut slots = vec![(0, FREE); (entries.len() * 2).next_power_of_two()].into_boxed_slice();
        for (index, (key, _)) in entries.iter().enumerate() {
            let Ok(index) = u32::try_from(index) else { break };
            let (tag, mut at) = position(key, slots.len());
            while slots[at].1 != FREE {
                at = (at + 1) & (slots.len() - 1);
            }
            slots[at] = (tag, index);
        }
        Self { slots, entries }
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<u32> {
        if self.slots.is_empty() {
            return None;
        }
        let (tag, mut at) = position(key, self.slots.len());
        loop {
            let (slot_tag, index) = self.slots[at];
            if index == FREE {
                return None;
            }
            if slot_tag == tag {
                let (candidate, value) = &self.entries[index as usize];
                if **candidate == *key {
                    return Some(*value);
                }
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
    }

    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        self.get(key).is_some()
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &[u8]> {
        self.entries.iter().map(|(key, _)| &**key)
    }
}

/// Tag and first slot of a key in a table of `slots` (a power of two) slots.
fn position(key: &[u8], slots: usize) -> (u32, usize) {
    let hash = hash(key);
    let bytes = hash.to_be_bytes();
    let tag = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    let low = u32::from_be_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
    (tag, low as usize & (slots - 1))
}

fn hash(key: &[u8]) -> u64 {
    let mut state = (key.len() as u64).wrapping_mul(MULTIPLIER);
    let (words, rest) = key.as_chunks::<8>();
    for word in words {
        state = fold(state, u64::from_le_bytes(*word));
    }
    if !rest.is_empty() {
        let mut word = [0; 8];
        word[..rest.len()].copy_from_slice(rest);
        state = fold(state, u64::from_le_bytes(word));
    }
    state ^ (state >> 29)
}

/// A multiplication carries differences upwards only; the shift brings them down again.
pub(super) fn fold(state: u64, word: u64) -> u64 {
    let mixed = (state ^ word).wrapping_mul(MULTIPLIER);
    mixed ^ (mixed >> 32)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_key_is_found_and_no_other(
            keys in prop::collection::btree_set(prop::collection::vec(any::<u8>(), 0..20), 0..200),
            others in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..50),
        ) {
            let keys: Vec<_> = keys.into_iter().collect();
            let lookup = Lookup::build((0_u32..).zip(&keys).map(|(n, k)| (k.clone().into_boxed_slice(), n)));
            for (number, key) in (0_u32..).zip(&keys) {
                prop_assert_eq!(lookup.get(key), Some(number));
            }
            for other in others {
                prop_assert_eq!(lookup.contains(&other), keys.contains(&other));
            }
        }
    }
}
