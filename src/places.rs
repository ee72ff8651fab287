//! Who may connect to a port: how many connections there are, in all and of one address.
//!
//! Loopback is not limited by address: whoever is there has the machine, and a proxy there is not
//! one client.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Who connects, as far as limits tell: IPv4 addresses each, IPv6 by /64, which is the least that
/// one site has.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Site(u128);

impl Site {
    /// `None` for loopback.
    pub(crate) fn of(address: IpAddr) -> Option<Self> {
        match address.to_canonical() {
            address if address.is_loopback() => None,
            IpAddr::V4(v4) => Some(Self(v4.to_ipv6_mapped().to_bits())),
            IpAddr::V6(v6) => Some(Self(v6.to_bits() >> HOST_BITS << HOST_BITS)),
        }
    }
}

/// Bits of an IPv6 address that its owner chooses.
const HOST_BITS: u32 = 64;

/// The connections of one port. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    per_site_max: Option<usize>,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Debug)]
struct Taken {
    left: usize,
    /// As many entries as there are connections, at most.
    by_site: HashMap<Site, usize>,
}

/// A connection's place, given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    places: Places,
    /// Whose it is, if its address is limited.
    site: Option<Site>,
}

/// Why a connection gets no place.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Full {
    /// There are as many as there may be.
    InAll,
    /// Its address has as many as one may have.
    OfAddress,
}

impl Places {
    /// At most `in_all`, and `per_site_max` of one address.
    pub(crate) fn new(in_all: usize, per_site_max: Option<usize>) -> Self {
        let taken = Taken { left: in_all, by_site: HashMap::new() };
        Self { per_site_max, taken: Arc::new(Mutex::new(taken)) }
    }

    /// A place for one more connection.
    pub(crate) fn take(&self, address: IpAddr) -> Result<Place, Full> {
        let limited = self.per_site_max.zip(Site::of(address));
        let mut taken = self.lock();
        let left = taken.left.checked_sub(1).ok_or(Full::InAll)?;
        if let Some((max, site)) = limited {
            let count = taken.by_site.get(&site).copied().unwrap_or(0);
            if count >= max {
                return Err(Full::OfAddress);
            }
            taken.by_site.insert(site, count + 1);
        }
        taken.left = left;
        drop(taken);
        Ok(Place { places: self.clone(), site: limited.map(|(_, site)| site) })
    }

    /// Free places, and addresses with some.
    #[cfg(test)]
    pub(crate) fn counts(&self) -> (usize, usize) {
        let taken = self.lock();
        (taken.left, taken.by_site.len())
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        taken.left += 1;
        let Some(site) = self.site else { return };
        if let Entry::Occupied(mut entry) = taken.by_site.entry(site) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    fn v4(last: u8) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(192, 0, 2, last))
    }

    #[test]
    fn connections_are_limited_per_address_and_in_all() {
        let places = Places::new(5, Some(2));
        let first = places.take(v4(1)).unwrap();
        let second = places.take(v4(1)).unwrap();
        assert_eq!(places.take(v4(1)).unwrap_err(), Full::OfAddress);
        let mapped = IpAddr::V6(Ipv4Addr::new(192, 0, 2, 1).to_ipv6_mapped());
        assert_eq!(places.take(mapped).unwrap_err(), Full::OfAddress, "the same address");
        drop(first);
        let third = places.take(v4(1)).unwrap();
        let others: Vec<_> = (0..3)
            .map(|_| places.take(IpAddr::V4(Ipv4Addr::LOCALHOST)).expect("loopback is not limited"))
            .collect();
        assert_eq!(places.take(v4(2)).unwrap_err(), Full::InAll);
        drop((second, third, others));
        assert_eq!(places.counts(), (5, 0), "who is gone costs nothing");
    }

    #[test]
    fn an_ipv6_site_is_one_address() {
        let v6 = |text: &str| Site::of(text.parse().unwrap());
        assert_eq!(v6("2001:db8::1"), v6("2001:db8::2:3:4:5"));
        assert_ne!(v6("2001:db8::1"), v6("2001:db8:0:1::1"));
        assert_eq!(Site::of(IpAddr::V6(Ipv6Addr::LOCALHOST)), None);
        assert_eq!(v6("::ffff:127.0.0.1"), None);
    }
}
