//! Owners of files on both sides of a container's root: as the container knows them, and as they
//! appear through the root this agent holds. Without a user namespace both are the same.

use std::io;

/// The highest id that means somebody; above it are `-1` and its kin.
const OVERFLOW_ID: u32 = 65_534;

/// A mapping of users and one of groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owners {
    users: Ids,
    groups: Ids,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Ids(Vec<Extent>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Extent {
    inside: u32,
    outside: u32,
    count: u32,
}

impl Owners {
    /// Both sides are the same.
    pub(crate) const IDENTITY: Self = Self { users: Ids(Vec::new()), groups: Ids(Vec::new()) };

    /// The container's ids begin at `first` outside.
    pub(crate) fn shifted(first: u32, count: u32) -> Self {
        let ids = || Ids(vec![Extent { inside: 0, outside: first, count }]);
        Self { users: ids(), groups: ids() }
    }

    /// From a process's `uid_map` and `gid_map`.
    ///
    /// # Errors
    /// They are not in the kernel's format.
    pub(crate) fn of_maps(uid_map: &str, gid_map: &str) -> io::Result<Self> {
        Ok(Self { users: Ids::parse(uid_map)?, groups: Ids::parse(gid_map)? })
    }

    /// As the container knows them; who is not its own is nobody to it.
    pub(crate) fn inside(&self, uid: u32, gid: u32) -> (u32, u32) {
        (self.users.inside(uid), self.groups.inside(gid))
    }

    /// As they are set through the root; `None` for one the container does not have.
    pub(crate) fn outside(&self, uid: u32, gid: u32) -> Option<(u32, u32)> {
        Some((self.users.outside(uid)?, self.groups.outside(gid)?))
    }
}

impl Ids {
    fn parse(map: &str) -> io::Result<Self> {
        let malformed = || io::Error::other(format!("not an id map: {map:?}"));
        let mut extents = Vec::new();
        for line in map.lines() {
            let numbers: Vec<u32> =
                line.split_whitespace().map(str::parse).collect::<Result<_, _>>().map_err(|_| malformed())?;
            let [inside, outside, count] = numbers[..] else { return Err(malformed()) };
            extents.push(Extent { inside, outside, count });
        }
        match extents[..] {
            [] => Err(malformed()),
            [Extent { inside: 0, outside: 0, count: u32::MAX }] => Ok(Self(Vec::new())),
            _ => Ok(Self(extents)),
        }
    }

    fn inside(&self, id: u32) -> u32 {
        let held = |e: &&Extent| id.checked_sub(e.outside).is_some_and(|n| n < e.count);
        match self.0.iter().find(held) {
            Some(e) => e.inside + (id - e.outside),
            None if self.0.is_empty() => id,
            None => OVERFLOW_ID,
        }
    }

    fn outside(&self, id: u32) -> Option<u32> {
        let held = |e: &&Extent| id.checked_sub(e.inside).is_some_and(|n| n < e.count);
        match self.0.iter().find(held) {
            Some(e) => Some(e.outside + (id - e.inside)),
            None => self.0.is_empty().then_some(id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_initial_namespace_maps_everybody_to_himself() {
        let owners = Owners::of_maps("         0          0 4294967295\n", "0 0 4294967295\n").expect("a map");
        assert_eq!(owners, Owners::IDENTITY);
        assert_eq!((owners.inside(1000, 5), owners.outside(1000, 5)), ((1000, 5), Some((1000, 5))));
    }

    #[test]
    fn a_shifted_namespace_shifts_both_ways_and_knows_nobody_else() {
        let owners = Owners::of_maps("0 100000 65536\n", "0 200000 10\n10 300010 5").expect("a map");
        assert_eq!(owners.inside(100_033, 300_012), (33, 12));
        assert_eq!(owners.outside(33, 12), Some((100_033, 300_012)));
        assert_eq!(owners.inside(0, 0), (OVERFLOW_ID, OVERFLOW_ID), "the host's root is nobody inside");
        assert_eq!(owners.outside(65_536, 0), None);
    }

    #[test]
    fn what_is_no_map_is_refused() {
        for map in ["", "0 0", "a b c", "0 0 0 0"] {
            assert!(Owners::of_maps(map, "0 0 4294967295").is_err(), "{map:?}");
        }
    }
}
