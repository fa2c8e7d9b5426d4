//! The users who have a session in this shard, and how far their streams are.
//!
//! Looked up for every record in the journal, so the first look is at a 32-bit hash that stands in the record's header;
//! only if it is somebody's here, the record's user id is read and compared.

use bellwire::UserHash;
use hashbrown::HashTable;

/// A user's place in [`Users`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct UserIndex(u32);

/// How far a stream is, as of the shard's place in the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tracked {
    pub(super) epoch: u32,
    /// The last sequence number; 0 if there was none yet.
    pub(super) head: u64,
    /// Where the record with that number stands; 0 if there is none.
    pub(super) last_offset: u64,
}

#[derive(Debug)]
pub(super) struct User {
    pub(super) id: Box<str>,
    hash: UserHash,
    /// `None` until the broker has answered or a record came by.
    pub(super) tracked: Option<Tracked>,
    /// The slots of his sessions here. Bounded by limits.sessions_per_user.
    pub(super) slots: Vec<u32>,
}

/// Bounded by the number of sessions: a user leaves with his last one.
#[derive(Default)]
pub(super) struct Users {
    list: Vec<Option<User>>,
    free: Vec<u32>,
    by_hash: HashTable<u32>,
}

/// The hash is as good as any other for a table; its bits are spread over the word as hashbrown wants them.
fn spread(hash: UserHash) -> u64 {
    u64::from(hash.0).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Users {
    /// Notes that the session in that slot is the user's.
    pub(super) fn attach(&mut self, user_id: &str, slot: u32) -> UserIndex {
        let index = self.find(UserHash::of(user_id), || Some(user_id)).unwrap_or_else(|| self.add(user_id));
        if let Some(user) = self.get_mut(index) {
            user.slots.push(slot);
        }
        index
    }

    /// Forgets the session, and the user with his last one.
    pub(super) fn detach(&mut self, index: UserIndex, slot: u32) {
        let Some(user) = self.get_mut(index) else { return };
        user.slots.retain(|&other| other != slot);
        if user.slots.is_empty() {
            let hash = spread(user.hash);
            self.list[index.0 as usize] = None;
            if let Ok(entry) = self.by_hash.find_entry(hash, |&other| other == index.0) {
                entry.remove();
            }
            self.free.push(index.0);
        }
    }

    /// The user with that id, if he has a session here. `user_id` is asked only if the hash is somebody's.
    #[inline]
    pub(super) fn find<'a>(
        &self,
        hash: UserHash,
        user_id: impl FnOnce() -> Option<&'a str>,
    ) -> Option<UserIndex> {
        // Most records are of users who are not here.
        self.by_hash.find(spread(hash), |&index| self.at(index).is_some_and(|user| user.hash == hash))?;
        let user_id = user_id()?;
        let is_him = |&index: &u32| self.at(index).is_some_and(|user| *user.id == *user_id);
        self.by_hash.find(spread(hash), is_him).map(|&index| UserIndex(index))
    }

    #[inline]
    pub(super) fn get(&self, index: UserIndex) -> Option<&User> {
        self.at(index.0)
    }

    #[inline]
    pub(super) fn get_mut(&mut self, index: UserIndex) -> Option<&mut User> {
        self.list.get_mut(index.0 as usize)?.as_mut()
    }

    fn at(&self, index: u32) -> Option<&User> {
        self.list.get(index as usize)?.as_ref()
    }

    fn add(&mut self, user_id: &str) -> UserIndex {
        let hash = UserHash::of(user_id);
        let user = User { id: user_id.into(), hash, tracked: None, slots: Vec::with_capacity(1) };
        let index = match self.free.pop() {
            Some(index) => {
                self.list[index as usize] = Some(user);
                index
            }
            None => {
                self.list.push(Some(user));
                self.list.len() as u32 - 1
            }
        };
        let list = &self.list;
        let hash_of = |&other: &u32| list[other as usize].as_ref().map_or(0, |user| spread(user.hash));
        self.by_hash.insert_unique(spread(hash), index, hash_of);
        UserIndex(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_stays_as_long_as_one_of_his_sessions() {
        let mut users = Users::default();
        let anna = users.attach("anna", 1);
        assert_eq!(users.attach("anna", 2), anna);
        let bert = users.attach("bert", 3);
        let find = |users: &Users, id: &'static str| users.find(UserHash::of(id), || Some(id));
        users.detach(anna, 1);
        assert_eq!(find(&users, "anna"), Some(anna));
        assert_eq!(users.get(anna).unwrap().slots, [2]);
        users.detach(anna, 2);
        assert_eq!(find(&users, "anna"), None);
        assert_eq!(find(&users, "bert"), Some(bert));
        let cleo = users.attach("cleo", 4);
        assert_eq!(cleo, anna, "places are used again");
        assert_eq!(find(&users, "anna"), None);
        assert_eq!(find(&users, "cleo"), Some(cleo));
    }

    #[test]
    fn equal_hashes_are_told_apart_by_the_id() {
        let mut users = Users::default();
        users.attach("anna", 1);
        assert_eq!(users.find(UserHash::of("anna"), || Some("not anna")), None);
        assert_eq!(users.find(UserHash::of("anna"), || None), None);
    }
}
