//! Virtual addresses for services that state none: the same name gets the same address, on every start.
//!
//! The place in the range is the hash of the canonical host, and the next free place when two names meet.
//! Because of those meetings the result depends on who came first, so assignments are kept and persisted:
//! an application may hold an address that it looked up long ago. A name that went away keeps its place
//! until the range is full.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Assignments, for the caller to keep.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VirtualAddressState {
    /// Place in the range by canonical host.
    pub places: BTreeMap<String, u32>,
}

/// The pool. One place stands for one IPv4 and one IPv6 address, at the same offset of either range.
#[derive(Debug)]
pub struct VirtualAddresses {
    v4: Ipv4Net,
    v6: Ipv6Net,
    /// Places that may be given: 1 to `capacity`; 0 and the last address of the range are not given.
    capacity: u32,
    places: BTreeMap<String, u32>,
    taken: BTreeSet<u32>,
    has_changed: bool,
}

impl VirtualAddresses {
    /// A pool over two ranges, taking up former assignments. Those that do not fit the range are dropped.
    #[must_use]
    pub fn new(v4: Ipv4Net, v6: Ipv6Net, state: VirtualAddressState) -> Self {
        let host_bits = u32::from(32 - v4.prefix_len()).min(u32::from(128 - v6.prefix_len()).min(31));
        let capacity = (1_u32 << host_bits.min(30)).saturating_sub(2);
        let mut taken = BTreeSet::new();
        let mut places = state.places;
        places.retain(|_, place| (1..=capacity).contains(place) && taken.insert(*place));
        Self { v4: v4.trunc(), v6: v6.trunc(), capacity, places, taken, has_changed: false }
    }

    /// The addresses of `host`, IPv4 first. Empty when every place is taken, which the caller reports.
    pub fn assign(&mut self, host: &str) -> Vec<IpAddr> {
        let place = match self.places.get(host) {
            Some(place) => Some(*place),
            None => self.take_place(host),
        };
        place.map(|place| self.addresses_at(place)).unwrap_or_default()
    }

    /// The state, if it has changed since the last call.
    pub fn take_changed(&mut self) -> Option<VirtualAddressState> {
        std::mem::take(&mut self.has_changed).then(|| VirtualAddressState { places: self.places.clone() })
    }

    /// Whether an address is in either range.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.v4.contains(&address),
            IpAddr::V6(address) => self.v6.contains(&address),
        }
    }

    /// Number of names that have a place, and number of places.
    #[must_use]
    pub fn usage(&self) -> (usize, u32) {
        (self.places.len(), self.capacity)
    }

    /// The names that are not at the place of their hash. With these alone every other one finds its own.
    #[must_use]
    pub fn displaced(&self) -> VirtualAddressState {
        let is_displaced = |host: &str, place: u32| self.start(host).is_none_or(|start| place != 1 + start);
        let places = self.places.iter().filter(|(host, place)| is_displaced(host, **place));
        VirtualAddressState { places: places.map(|(host, place)| (host.clone(), *place)).collect() }
    }

    /// Puts names where `shared` says, every other one at the place of its hash if that is free, and what is left
    /// elsewhere. Answers the names that have moved, which were not all given an address before.
    pub fn adopt(&mut self, shared: &VirtualAddressState) -> Vec<String> {
        let mut claims = BTreeMap::new();
        for (host, place) in &shared.places {
            if (1..=self.capacity).contains(place) {
                claims.entry(*place).or_insert(host);
            }
        }
        let claimants: BTreeMap<&String, u32> = claims.iter().map(|(place, host)| (*host, *place)).collect();
        // Who is where another belongs, or elsewhere than at home without a word of the others about it.
        let is_settled = |host: &String, place: u32| match (claimants.get(host), claims.get(&place)) {
            (Some(claimed), _) => *claimed == place,
            (None, Some(_)) => false,
            (None, None) => self.start(host).is_some_and(|start| place == 1 + start),
        };
        let leaving: BTreeMap<String, u32> = self
            .places
            .iter()
            .filter(|(host, place)| !is_settled(host, **place))
            .map(|(host, place)| (host.clone(), *place))
            .collect();
        for (host, place) in &leaving {
            self.places.remove(host);
            self.taken.remove(place);
        }
        let mut moved: Vec<String> = Vec::new();
        for (host, place) in claimants {
            if self.taken.insert(place) {
                self.places.insert(host.clone(), place);
                moved.push(host.clone());
            }
        }
        let homeless: Vec<_> = leaving.keys().filter(|host| !self.places.contains_key(*host)).collect();
        let is_home_free = |pool: &Self, host: &str| {
            pool.start(host).is_some_and(|start| !pool.taken.contains(&(1 + start)))
        };
        let (mut home, rest): (Vec<_>, Vec<_>) =
            homeless.into_iter().partition(|host| is_home_free(self, host));
        home.extend(rest);
        for host in home {
            let place = self.take_place(host);
            if place != leaving.get(host).copied() {
                moved.push(host.clone());
            }
        }
        self.has_changed |= !moved.is_empty();
        moved
    }

    /// The place of a name's hash, counted from 0; `None` when there are no places.
    fn start(&self, host: &str) -> Option<u32> {
        let digest = Sha256::digest(host.as_bytes());
        let hash = u64::from_be_bytes(digest[..8].try_into().expect("a SHA-256 has 32 bytes"));
        let start = hash.checked_rem(u64::from(self.capacity))?;
        Some(u32::try_from(start).expect("less than a u32"))
    }

    fn take_place(&mut self, host: &str) -> Option<u32> {
        let start = self.start(host)?;
        let free = (0..self.capacity)
            .map(|step| 1 + (start + step) % self.capacity)
            .find(|place| !self.taken.contains(place))?;
        self.taken.insert(free);
        self.places.insert(host.to_owned(), free);
        self.has_changed = true;
        Some(free)
    }

    fn addresses_at(&self, place: u32) -> Vec<IpAddr> {
        let v4 = Ipv4Addr::from_bits(self.v4.network().to_bits() + place);
        let v6 = Ipv6Addr::from_bits(self.v6.network().to_bits() + u128::from(place));
        vec![IpAddr::V4(v4), IpAddr::V6(v6)]
    }

    /// Forgets names for which `is_in_use` says no, to make room.
    pub fn forget(&mut self, is_in_use: impl Fn(&str) -> bool) {
        let before = self.places.len();
        let taken = &mut self.taken;
        self.places.retain(|host, place| {
            let keep = is_in_use(host);
            if !keep {
                taken.remove(place);
            }
            keep
        });
        self.has_changed |= self.places.len() != before;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pool(v4: &str, state: VirtualAddressState) -> VirtualAddresses {
        VirtualAddresses::new(v4.parse().expect("valid"), "fd77:6d6d::/64".parse().expect("valid"), state)
    }

    #[test]
    fn a_name_keeps_its_address_over_a_restart() {
        let mut first = pool("240.240.0.0/16", VirtualAddressState::default());
        let given: Vec<_> = (0..500).map(|n| first.assign(&format!("s{n}.d.svc.cluster.local"))).collect();
        let state = first.take_changed().expect("names were added");
        assert_eq!(first.take_changed(), None);
        let mut second = pool("240.240.0.0/16", state);
        for (n, addresses) in given.iter().enumerate().rev() {
            assert_eq!(second.assign(&format!("s{n}.d.svc.cluster.local")), *addresses);
        }
        assert_eq!(second.take_changed(), None);
    }

    #[test]
    fn a_full_range_gives_nothing_until_names_are_forgotten() {
        let mut pool = pool("10.0.0.0/29", VirtualAddressState::default());
        for n in 0..6 {
            assert_eq!(pool.assign(&n.to_string()).len(), 2);
        }
        assert!(pool.assign("late").is_empty());
        pool.forget(|host| host != "3");
        assert_eq!(pool.assign("late").len(), 2);
    }

    proptest! {
        /// Replicas may see names in any order; what one of them shares makes the others agree with it.
        #[test]
        fn whoever_adopts_what_is_shared_gives_the_same_addresses(
            (names, order) in prop::collection::btree_set("[a-z]{1,3}", 0..14)
                .prop_map(|names| names.into_iter().collect::<Vec<_>>())
                .prop_flat_map(|names| (Just(names.clone()), Just(names).prop_shuffle())),
        ) {
            let mut leader = pool("10.0.0.0/28", VirtualAddressState::default());
            let mut follower = pool("10.0.0.0/28", VirtualAddressState::default());
            let given: Vec<_> = names.iter().map(|name| leader.assign(name)).collect();
            order.iter().for_each(|name| drop(follower.assign(name)));
            let shared = leader.displaced();
            let moved = follower.adopt(&shared);
            prop_assert!(moved.len() <= names.len());
            let after: Vec<_> = names.iter().map(|name| follower.assign(name)).collect();
            prop_assert_eq!(&after, &given);
            prop_assert_eq!(follower.adopt(&shared), Vec::<String>::new());
            // One that starts with what is shared agrees from the first moment.
            let mut fresh = pool("10.0.0.0/28", shared);
            order.iter().for_each(|name| drop(fresh.assign(name)));
            let fresh: Vec<_> = names.iter().map(|name| fresh.assign(name)).collect();
            prop_assert_eq!(fresh, given);
        }

        #[test]
        fn no_two_names_share_an_address(names in proptest::collection::btree_set("[a-z]{1,6}", 0..14)) {
            let mut pool = pool("10.0.0.0/28", VirtualAddressState::default());
            let given: BTreeSet<_> = names.iter().flat_map(|name| pool.assign(name)).collect();
            prop_assert_eq!(given.len(), names.len() * 2);
            let range: Ipv4Net = "10.0.0.0/28".parse().expect("valid");
            for address in given {
                if let IpAddr::V4(address) = address {
                    prop_assert!(range.contains(&address));
                    prop_assert!(address != range.network() && address != range.broadcast());
                }
            }
        }
    }
}
