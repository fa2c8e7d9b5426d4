//! What is counted across shards: sessions in all, of one address, of one user. A lock is taken when a session comes,
//! authenticates or goes, never when something is pushed.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::config;
use crate::socket::handshake::Admission;

#[derive(Debug)]
pub struct Limits {
    // Relaxed throughout: numbers on their own, which a reload may change.
    total_max: AtomicU32,
    per_address_max: AtomicU32,
    per_user_max: AtomicU32,
    total: AtomicU32,
    // Keyed by a seeded hash, so an entry is 12 bytes; two keys that share a 64-bit hash would share a limit.
    // Bounded by the sessions in all.
    addresses: Mutex<HashMap<u64, u32>>,
    users: Mutex<HashMap<u64, u32>>,
    seed: RandomState,
}

/// A place among all sessions and those of the address; given back when dropped.
#[derive(Debug)]
pub struct AddressPermit {
    limits: Arc<Limits>,
    /// `None` if addresses are not limited.
    address: Option<u64>,
}

/// A place among the sessions of the user; given back when dropped.
#[derive(Debug)]
pub struct UserPermit {
    limits: Arc<Limits>,
    user: u64,
}

impl Limits {
    pub fn new(config: &config::Limits) -> Arc<Self> {
        Arc::new(Self {
            total_max: config.sessions_total.into(),
            per_address_max: config.sessions_per_address.into(),
            per_user_max: config.sessions_per_user.into(),
            total: AtomicU32::new(0),
            addresses: Mutex::default(),
            users: Mutex::default(),
            seed: RandomState::new(),
        })
    }

    /// Other bounds, for those who come from now on; nobody who is inside has to go.
    pub fn change(&self, config: &config::Limits) {
        self.total_max.store(config.sessions_total, Ordering::Relaxed);
        self.per_address_max.store(config.sessions_per_address, Ordering::Relaxed);
        self.per_user_max.store(config.sessions_per_user, Ordering::Relaxed);
    }

    /// The sessions that one user may have.
    pub fn per_user_max(&self) -> u32 {
        self.per_user_max.load(Ordering::Relaxed)
    }

    /// Sessions and handshakes now.
    pub fn total(&self) -> u32 {
        self.total.load(Ordering::Relaxed) // a figure for people
    }

    /// A place for a connection, or why there is none. Without an address it is among all of them only, until
    /// [`AddressPermit::count_address`].
    ///
    /// # Errors
    /// The reason, to be told to the client.
    pub fn enter(self: &Arc<Self>, address: Option<IpAddr>) -> Result<AddressPermit, Admission> {
        // Relaxed: the count is all that is shared. A refused attempt takes its own count back.
        if self.total.fetch_add(1, Ordering::Relaxed) >= self.total_max.load(Ordering::Relaxed) {
            self.total.fetch_sub(1, Ordering::Relaxed);
            return Err(Admission::Full);
        }
        let mut permit = AddressPermit { limits: Arc::clone(self), address: None };
        address.map_or(Ok(()), |address| permit.count_address(address))?;
        Ok(permit)
    }

    /// A place for a session of that user; `None` if he has as many as allowed.
    pub fn enter_user(self: &Arc<Self>, user_id: &str) -> Option<UserPermit> {
        let user = self.seed.hash_one(user_id);
        take(&self.users, user, self.per_user_max()).then(|| UserPermit { limits: Arc::clone(self), user })
    }
}

impl AddressPermit {
    /// The client's address has become known: it takes a place of that address.
    ///
    /// # Errors
    /// The address has as many as allowed.
    pub fn count_address(&mut self, address: IpAddr) -> Result<(), Admission> {
        let limits = &self.limits;
        let max = limits.per_address_max.load(Ordering::Relaxed);
        if max > 0 && self.address.is_none() {
            let key = limits.seed.hash_one(network(address));
            if !take(&limits.addresses, key, max) {
                return Err(Admission::TooManyOfAddress);
            }
            self.address = Some(key);
        }
        Ok(())
    }
}

impl Drop for AddressPermit {
    fn drop(&mut self) {
        self.limits.total.fetch_sub(1, Ordering::Relaxed); // see `enter`
        if let Some(address) = self.address {
            give_back(&self.limits.addresses, address);
        }
    }
}

impl Drop for UserPermit {
    fn drop(&mut self) {
        give_back(&self.limits.users, self.user);
    }
}

fn take(counts: &Mutex<HashMap<u64, u32>>, key: u64, max: u32) -> bool {
    let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
    let count = counts.entry(key).or_default();
    let free = *count < max;
    if free {
        *count += 1;
    }
    free
}

fn give_back(counts: &Mutex<HashMap<u64, u32>>, key: u64) {
    let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(count) = counts.get_mut(&key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&key);
        }
    }
}

/// What one client can be expected to hold: an IPv4 address, or an IPv6 /64.
fn network(address: IpAddr) -> impl Hash {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(total: u32, address: u32, user: u32) -> Arc<Limits> {
        Limits::new(&config::Limits {
            sessions_total: total,
            sessions_per_address: address,
            sessions_per_user: user,
            ..config::Limits::default()
        })
    }

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn places_are_bounded_and_given_back() {
        let limits = limits(3, 2, 1);
        let first = limits.enter(ip("10.0.0.1")).unwrap();
        let _second = limits.enter(ip("::ffff:10.0.0.1")).unwrap();
        assert_eq!(limits.enter(ip("10.0.0.1")).err(), Some(Admission::TooManyOfAddress));
        assert_eq!(limits.total(), 2, "a refused connection takes no place");
        let _third = limits.enter(ip("10.0.0.2")).unwrap();
        assert_eq!(limits.enter(ip("10.0.0.3")).err(), Some(Admission::Full));
        drop(first);
        assert!(limits.enter(ip("10.0.0.1")).is_ok());

        let user = limits.enter_user("anna").unwrap();
        assert!(limits.enter_user("anna").is_none());
        assert!(limits.enter_user("bert").is_some());
        drop(user);
        assert!(limits.enter_user("anna").is_some());
        assert!(limits.users.lock().unwrap().is_empty(), "nothing is kept of those who left");
    }

    #[test]
    fn an_ipv6_client_is_its_64_bit_network_and_zero_is_no_limit() {
        let one = limits(10, 1, 1);
        let _permit = one.enter(ip("2001:db8::1")).unwrap();
        assert!(one.enter(ip("2001:db8::2")).is_err());
        assert!(one.enter(ip("2001:db8:0:1::2")).is_ok());
        let none = limits(10, 0, 1);
        let mut proxied = one.enter(None).unwrap();
        assert!(proxied.count_address(ip("2001:db8::3").unwrap()).is_err(), "behind a proxy, too");
        let permits: Vec<_> = (0..10).map(|_| none.enter(ip("10.0.0.1")).unwrap()).collect();
        assert_eq!(permits.len(), 10);
    }
}
