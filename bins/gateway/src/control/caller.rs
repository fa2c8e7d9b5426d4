//! Who asks, and whether he may.

use nix::unistd::{Gid, Group, Uid, User, geteuid, getgrouplist};

/// Root, the gateway's own user, and the members of a group.
#[derive(Clone, Copy, Debug)]
pub(super) struct Permitted {
    own: Uid,
    group: Option<Gid>,
}

/// A process at the other end of the socket, as the kernel vouches for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caller {
    pub(super) uid: Uid,
    pub(super) gid: Gid,
    pub(super) pid: i32,
}

impl Permitted {
    /// # Errors
    /// One sentence: no such group.
    pub(super) fn new(group: Option<&str>) -> Result<Self, String> {
        let lookup = |name: &str| match Group::from_name(name) {
            Ok(Some(group)) => Ok(group.gid),
            Ok(None) => Err(format!("there is no group {name:?} on this machine")),
            Err(error) => Err(format!("cannot look up {name:?}: {}", error.desc())),
        };
        Ok(Self { own: geteuid(), group: group.map(lookup).transpose()? })
    }

    pub(super) fn group(&self) -> Option<Gid> {
        self.group
    }

    pub(super) fn permits(&self, caller: Caller) -> bool {
        caller.uid.is_root()
            || caller.uid == self.own
            || self.group.is_some_and(|group| caller.gid == group || is_member(caller, group))
    }
}

/// Whether the group is among the supplementary ones of the caller's user, as the user database has it now.
fn is_member(caller: Caller, group: Gid) -> bool {
    let Ok(Some(user)) = User::from_uid(caller.uid) else { return false };
    let Ok(name) = std::ffi::CString::new(user.name) else { return false };
    getgrouplist(&name, user.gid).is_ok_and(|groups| groups.contains(&group))
}

impl Caller {
    /// `None` if the kernel does not say.
    pub(super) fn of(stream: &tokio::net::UnixStream) -> Option<Self> {
        let of = stream.peer_cred().ok()?;
        Some(Self {
            uid: Uid::from_raw(of.uid()),
            gid: Gid::from_raw(of.gid()),
            pid: of.pid().unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_the_own_user_and_the_group_may_and_nobody_else() {
        let caller = |uid, gid| Caller { uid: Uid::from_raw(uid), gid: Gid::from_raw(gid), pid: 1 };
        let permitted = Permitted { own: Uid::from_raw(4242), group: Some(Gid::from_raw(777_001)) };
        assert!(permitted.permits(caller(0, 0)) && permitted.permits(caller(4242, 1)));
        assert!(permitted.permits(caller(777_777, 777_001)));
        assert!(!permitted.permits(caller(777_777, 1)));
        let alone = Permitted { group: None, ..permitted };
        assert!(!alone.permits(caller(777_777, 777_001)) && !alone.permits(caller(777_777, 0)));
        assert!(Permitted::new(Some("no such group here")).unwrap_err().contains("no such group here"));
    }
}
