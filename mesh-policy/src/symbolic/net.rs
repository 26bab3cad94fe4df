//! Is there an address within some blocks and outside of others? By intervals of whole numbers, exactly.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Which addresses a connection has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

/// Addresses that read well, tried first.
const PREFERRED: [IpAddr; 4] = [
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
];

/// Closed intervals, ascending and apart.
type Intervals = Vec<(u128, u128)>;

/// An address of the family that is in one block of each of `holds` and in none of `fails`.
pub(super) fn find<'b>(
    family: Family,
    holds: impl IntoIterator<Item = &'b [IpNet]>,
    fails: impl IntoIterator<Item = &'b [IpNet]>,
) -> Option<IpAddr> {
    let mut left = match family {
        Family::V4 => vec![(0, u128::from(u32::MAX))],
        // Mapped IPv4 addresses are read as IPv4 before anything is judged (TRAP 21).
        Family::V6 => without(vec![(0, u128::MAX)], &[(0xffff << 32, 0xffff_ffff_ffff)]),
    };
    for blocks in holds {
        left = within(&left, &intervals(family, blocks));
    }
    for blocks in fails {
        left = without(left, &intervals(family, blocks));
    }
    let preferred = PREFERRED.iter().find(|address| {
        number(family, **address)
            .is_some_and(|at| left.iter().any(|(low, high)| (*low..=*high).contains(&at)))
    });
    if let Some(preferred) = preferred {
        return Some(*preferred);
    }
    // The first address of a block names the block, so the second reads better.
    let (low, high) = left.first()?;
    let at = if low < high { low + 1 } else { *low };
    Some(match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::from(u32::try_from(at).ok()?)),
        Family::V6 => IpAddr::V6(Ipv6Addr::from(at)),
    })
}

fn number(family: Family, address: IpAddr) -> Option<u128> {
    match (family, address) {
        (Family::V4, IpAddr::V4(address)) => Some(u128::from(u32::from(address))),
        (Family::V6, IpAddr::V6(address)) => Some(u128::from(address)),
        (Family::V4, IpAddr::V6(_)) | (Family::V6, IpAddr::V4(_)) => None,
    }
}

fn intervals(family: Family, blocks: &[IpNet]) -> Intervals {
    let ends = |block: &IpNet| Some((number(family, block.network())?, number(family, block.broadcast())?));
    let mut intervals: Intervals = blocks.iter().filter_map(ends).collect();
    intervals.sort_unstable();
    let mut joined: Intervals = Vec::new();
    for (low, high) in intervals {
        match joined.last_mut() {
            Some(last) if low <= last.1 => last.1 = last.1.max(high),
            _ => joined.push((low, high)),
        }
    }
    joined
}

fn within(left: &[(u128, u128)], right: &[(u128, u128)]) -> Intervals {
    let mut both = Vec::new();
    for (low, high) in left {
        for (from, to) in right {
            let (from, to) = (*from.max(low), *to.min(high));
            if from <= to {
                both.push((from, to));
            }
        }
    }
    both
}

fn without(left: Intervals, right: &[(u128, u128)]) -> Intervals {
    let mut rest = Vec::new();
    for (low, high) in left {
        let mut low = Some(low);
        for (from, to) in right {
            let Some(at) = low.filter(|at| to >= at && *from <= high) else { continue };
            if *from > at {
                rest.push((at, from - 1));
            }
            low = to.checked_add(1).filter(|next| *next <= high);
        }
        rest.extend(low.map(|low| (low, high)));
    }
    rest
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn blocks() -> impl Strategy<Value = Vec<IpNet>> {
        let block = (0_u8..8, 28_u8..=32).prop_map(|(low, length)| {
            IpNet::new(IpAddr::V4(Ipv4Addr::new(0, 0, 0, low)), length).expect("valid").trunc()
        });
        prop::collection::vec(block, 1..4)
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn an_address_is_found_just_when_there_is_one(
            holds in prop::collection::vec(blocks(), 1..3),
            fails in prop::collection::vec(blocks(), 0..3),
        ) {
            let found = find(Family::V4, holds.iter().map(Vec::as_slice), fails.iter().map(Vec::as_slice));
            let is_in = |blocks: &Vec<IpNet>, address: &IpAddr| blocks.iter().any(|block| block.contains(address));
            let meets = |address: &IpAddr| holds.iter().all(|set| is_in(set, address)) && !fails.iter().any(|set| is_in(set, address));
            let expected = (0_u8..=255).map(|low| IpAddr::V4(Ipv4Addr::new(0, 0, 0, low))).any(|address| meets(&address));
            prop_assert_eq!(found.is_some(), expected);
            prop_assert!(found.is_none_or(|address| meets(&address)));
        }
    }

    #[test]
    fn one_family_is_not_the_other() {
        let all_v4: IpNet = "0.0.0.0/0".parse().expect("a block");
        assert_eq!(find(Family::V4, [], [&[all_v4][..]]), None);
        assert!(find(Family::V6, [], [&[all_v4][..]]).is_some_and(|address| address.is_ipv6()));
        let mapped: IpNet = "::ffff:0:0/96".parse().expect("a block");
        assert_eq!(find(Family::V6, [&[mapped][..]], []), None);
    }
}
