//! With what privilege a local mesh runs: as root, or in a user namespace.
//!
//! Either way applications end up without any capability. As root they run as another user: the one who
//! called `sudo`, else `nobody`. In a user namespace only the own user exists, so they run as it, in a second
//! user namespace below, which has no power over the networks that belong to the first.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;

use caps::{CapSet, Capability};
use nix::errno::Errno;
use nix::unistd::{Gid, Group, Uid, User, getegid, geteuid};
use serde::{Deserialize, Serialize};

/// User of every proxy when `meshctl` is root, as Istio's images have it. It owns nothing on the machine.
pub(crate) const PROXY_UID: u32 = 1337;
/// Debian's `nobody` and `nogroup`, and the kernel's overflow id.
const NOBODY: u32 = 65534;

/// How much this user may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Privilege {
    /// Real root with the capabilities to make namespaces.
    Root,
    /// In a user namespace, in which `uid` and `gid` of the caller are 0.
    Namespaced {
        /// The caller's user.
        uid: u32,
        /// The caller's group.
        gid: u32,
    },
}

/// As whom an application runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Credentials {
    /// User.
    pub(crate) uid: u32,
    /// Group.
    pub(crate) gid: u32,
    /// Name of the user, when it has one.
    pub(crate) name: Option<String>,
    /// Home directory, when it has one.
    pub(crate) home: Option<String>,
}

/// Why a user was refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UserError {
    /// There is none of that name.
    #[error("there is no user {0:?} on this machine")]
    Unknown(String),
    /// There is no group of that name.
    #[error("there is no group {0:?} on this machine")]
    UnknownGroup(String),
    /// Only root can run something as somebody else.
    #[error("only root can run an application as {0:?}; without root everything runs as you")]
    NotRoot(String),
    /// The proxies' user could read their secrets and pass for them.
    #[error("user {PROXY_UID} is that of the proxies")]
    ProxyUser,
    /// The list of users cannot be read.
    #[error("cannot look up {user:?}: {source}")]
    Lookup {
        /// Whom.
        user: String,
        /// Why.
        source: Errno,
    },
}

/// What the kernel refuses, and what would have to change.
#[derive(Debug, thiserror::Error)]
#[error("this machine does not let you make the namespaces that a local mesh needs: {reason}")]
pub(crate) struct PrivilegeError {
    /// What is missing, and what to do.
    reason: String,
}

impl Privilege {
    /// What this process may do. Root inside a container without the capabilities counts as an ordinary user.
    pub(crate) fn of_this_process() -> Self {
        let holds = |capability| caps::has_cap(None, CapSet::Effective, capability).unwrap_or(false);
        let needed = [
            Capability::CAP_SYS_ADMIN,
            Capability::CAP_NET_ADMIN,
            Capability::CAP_SETUID,
            Capability::CAP_SETGID,
            Capability::CAP_SETPCAP,
            Capability::CAP_CHOWN,
        ];
        if geteuid().is_root() && needed.into_iter().all(holds) {
            Self::Root
        } else {
            Self::Namespaced { uid: geteuid().as_raw(), gid: getegid().as_raw() }
        }
    }

    /// As whom an application runs that asks for `stated`.
    ///
    /// # Errors
    /// When there is no such user, or it cannot be had.
    pub(crate) fn user(self, stated: Option<&str>) -> Result<Credentials, UserError> {
        match (self, stated) {
            (Self::Root, Some(text)) => parse(text),
            (Self::Root, None) => match sudo_caller() {
                Some(text) => parse(&text),
                None => {
                    Ok(Credentials { uid: NOBODY, gid: NOBODY, name: Some("nobody".to_owned()), home: None })
                }
            },
            (Self::Namespaced { uid, gid }, stated) => {
                let own = credentials(uid, Some(gid))?;
                match stated.map(parse).transpose() {
                    Ok(None) => Ok(own),
                    Ok(Some(other)) if other.uid == uid => Ok(own),
                    Ok(Some(_)) | Err(_) => Err(UserError::NotRoot(stated.unwrap_or_default().to_owned())),
                }
            }
        }
    }
}

impl Credentials {
    /// The variables by which programs find out who they are.
    pub(crate) fn environment(&self) -> BTreeMap<String, String> {
        let home = self.home.clone().unwrap_or_else(|| "/".to_owned());
        let name = self.name.clone().unwrap_or_else(|| self.uid.to_string());
        BTreeMap::from([
            ("HOME".to_owned(), home),
            ("USER".to_owned(), name.clone()),
            ("LOGNAME".to_owned(), name),
        ])
    }
}

impl fmt::Display for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{name} ({}:{})", self.uid, self.gid),
            None => write!(f, "{}:{}", self.uid, self.gid),
        }
    }
}

impl PrivilegeError {
    /// Explains why the kernel refused with `errno`, from what its settings say.
    pub(crate) fn explain(privilege: Privilege, errno: Errno) -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        Self::from_settings(privilege, errno, &read)
    }

    fn from_settings(privilege: Privilege, errno: Errno, read: &dyn Fn(&str) -> String) -> Self {
        let reason = if privilege == Privilege::Root {
            format!("{}; in a container, it needs to be privileged", errno.desc())
        } else if read("/proc/sys/kernel/unprivileged_userns_clone") == "0" {
            "user namespaces are switched off; allow them with `sysctl -w kernel.unprivileged_userns_clone=1`, \
             or use root"
                .to_owned()
        } else if read("/proc/sys/user/max_user_namespaces") == "0" {
            "user namespaces are limited to none; allow them with `sysctl -w user.max_user_namespaces=10000`, \
             or use root"
                .to_owned()
        } else if read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1" {
            "AppArmor keeps user namespaces from unconfined programs; allow them with \
             `sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`, or use root"
                .to_owned()
        } else {
            format!(
                "{}; a container's seccomp profile may forbid them; use root, or a privileged container",
                errno.desc()
            )
        };
        Self { reason }
    }
}

fn sudo_caller() -> Option<String> {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u32>().ok();
    let uid = number("SUDO_UID").filter(|uid| *uid != 0)?;
    Some(format!("{uid}:{}", number("SUDO_GID").unwrap_or(uid)))
}

/// Parses `name`, `uid`, `name:group` or `uid:gid`.
fn parse(text: &str) -> Result<Credentials, UserError> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let gid = group.map(group_id).transpose()?;
    let found = match user.parse::<u32>() {
        Ok(uid) => credentials(uid, gid)?,
        Err(_) => {
            let found = User::from_name(user)
                .map_err(|source| UserError::Lookup { user: user.to_owned(), source })?
                .ok_or_else(|| UserError::Unknown(user.to_owned()))?;
            of(found, gid)
        }
    };
    if found.uid == PROXY_UID { Err(UserError::ProxyUser) } else { Ok(found) }
}

fn group_id(text: &str) -> Result<u32, UserError> {
    if let Ok(gid) = text.parse() {
        return Ok(gid);
    }
    let group =
        Group::from_name(text).map_err(|source| UserError::Lookup { user: text.to_owned(), source })?;
    group.map(|group| group.gid.as_raw()).ok_or_else(|| UserError::UnknownGroup(text.to_owned()))
}

fn credentials(uid: u32, gid: Option<u32>) -> Result<Credentials, UserError> {
    let found = User::from_uid(Uid::from_raw(uid))
        .map_err(|source| UserError::Lookup { user: uid.to_string(), source })?;
    // A number without an account is a user all the same, as containers use them.
    Ok(match found {
        Some(user) => of(user, gid),
        None => Credentials { uid, gid: gid.unwrap_or(uid), name: None, home: None },
    })
}

fn of(user: User, gid: Option<u32>) -> Credentials {
    Credentials {
        uid: user.uid.as_raw(),
        gid: gid.map_or(user.gid, Gid::from_raw).as_raw(),
        name: Some(user.name),
        home: user.dir.to_str().map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_names_or_numbers() {
        assert_eq!(parse("root").map(|user| user.uid).ok(), Some(0));
        let user = parse("4242:4343").expect("numbers need no account");
        assert_eq!((user.uid, user.gid), (4242, 4343));
        assert_eq!(parse("4242").map(|user| user.gid).ok(), Some(4242));
        assert!(matches!(parse("no-such-user-here"), Err(UserError::Unknown(_))));
        assert!(matches!(parse("0:no-such-group-here"), Err(UserError::UnknownGroup(_))));
        assert!(matches!(parse("1337"), Err(UserError::ProxyUser)));
    }

    #[test]
    fn without_root_everything_runs_as_the_caller() {
        let privilege = Privilege::Namespaced { uid: 4242, gid: 4243 };
        assert_eq!(privilege.user(None).map(|user| (user.uid, user.gid)).ok(), Some((4242, 4243)));
        assert!(privilege.user(Some("4242")).is_ok());
        assert!(matches!(privilege.user(Some("root")), Err(UserError::NotRoot(_))));
    }

    #[test]
    fn a_refusal_names_the_setting_that_causes_it() {
        let user = Privilege::Namespaced { uid: 1000, gid: 1000 };
        for (path, value, needle) in [
            ("/proc/sys/kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=1"),
            ("/proc/sys/user/max_user_namespaces", "0", "user.max_user_namespaces"),
            (
                "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
                "1",
                "apparmor_restrict_unprivileged_userns=0",
            ),
            ("", "", "seccomp"),
        ] {
            let read = |asked: &str| if asked == path { value.to_owned() } else { "7".to_owned() };
            let error = PrivilegeError::from_settings(user, Errno::EPERM, &read).to_string();
            assert!(error.contains(needle) && error.contains("root"), "{error}");
        }
    }
}
