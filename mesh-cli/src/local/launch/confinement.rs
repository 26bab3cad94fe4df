//! What a program of the mesh sees of the file system, and what it may do.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use caps::{CapSet, Capability, CapsHashSet};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

use super::{LaunchError, LaunchSpec, Mount, Role};
use crate::local::privilege::{PROXY_UID, Privilege};

/// User of applications inside their user namespace when the caller is user 0 outside: it must not be 0
/// there, or executing a program would give it capabilities.
const APP_UID: u32 = 1000;

/// Gives the process a view of the file system of its own, changed as the spec says.
pub(super) fn file_system(spec: &LaunchSpec) -> Result<(), LaunchError> {
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS)
        .map_err(LaunchError::confine("make namespaces for files and the host name"))?;
    isolate_mounts()?;
    spec.mounts.iter().try_for_each(apply)
}

/// Keeps later mounts of this process to its own mount namespace.
pub(crate) fn isolate_mounts() -> Result<(), LaunchError> {
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .map_err(LaunchError::confine("separate the mounts"))
}

fn apply(change: &Mount) -> Result<(), LaunchError> {
    match change {
        Mount::Release { target } => umount2(target, MntFlags::MNT_DETACH)
            .map_err(LaunchError::confine(format!("let go of {}", target.display()))),
        Mount::Bind { source, target } => bind(source, &resolved(target)?),
        Mount::Empty { target } => empty(&resolved(target)?),
        Mount::Only { target, entries } => {
            let target = resolved(target)?;
            // The sources may lie below the target, so they are held elsewhere until the target is covered.
            let held: Vec<(PathBuf, fs::File, bool)> = entries
                .iter()
                .map(|(name, source)| {
                    let file = fs::File::open(source).map_err(failed("open", source))?;
                    let is_folder = file.metadata().map_err(failed("look at", source))?.is_dir();
                    Ok((target.join(name), file, is_folder))
                })
                .collect::<Result<_, LaunchError>>()?;
            writable(&target)?;
            for (place, file, is_folder) in &held {
                let made = if *is_folder { fs::create_dir(place) } else { fs::write(place, "") };
                made.map_err(failed("make", place))?;
                bind(&held_path(file), place)?;
            }
            Ok(())
        }
        Mount::Mask { target } => match fs::canonicalize(target) {
            Ok(found) if found.is_dir() => empty(&found),
            Ok(found) => bind(Path::new("/dev/null"), &found),
            // What this user cannot reach, its programs cannot either.
            Err(error)
                if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) =>
            {
                Ok(())
            }
            Err(error) => Err(failed("look at", target)(error)),
        },
    }
}

/// Path by which the kernel finds an open file again.
fn held_path(file: &fs::File) -> PathBuf {
    use std::os::fd::AsRawFd as _;
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

fn resolved(target: &Path) -> Result<PathBuf, LaunchError> {
    fs::canonicalize(target).map_err(failed("find", target))
}

fn bind(source: &Path, target: &Path) -> Result<(), LaunchError> {
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some(source), target, None::<&str>, flags, None::<&str>).map_err(LaunchError::confine(format!(
        "put {} at {}",
        source.display(),
        target.display()
    )))
}

fn empty(target: &Path) -> Result<(), LaunchError> {
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NODEV | MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    mount(Some("tmpfs"), target, Some("tmpfs"), flags, Some("mode=0755,size=4k"))
        .map_err(LaunchError::confine(format!("hide {}", target.display())))
}

fn writable(target: &Path) -> Result<(), LaunchError> {
    let flags = MsFlags::MS_NODEV | MsFlags::MS_NOSUID;
    mount(Some("tmpfs"), target, Some("tmpfs"), flags, Some("mode=0755,size=64k"))
        .map_err(LaunchError::confine(format!("replace {}", target.display())))
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LaunchError {
    let step = format!("{action} {}", path.display());
    move |source| LaunchError::Confine { step, source }
}

/// Gives up everything that the role does not need, for good.
pub(super) fn drop_privilege(spec: &LaunchSpec) -> Result<(), LaunchError> {
    match (&spec.role, spec.privilege) {
        (Role::App(user), Privilege::Root) => {
            bound(&[])?;
            become_user(user.uid, user.gid)?;
            keep(&[])?;
        }
        (Role::App(_), Privilege::Namespaced { uid, gid }) => {
            nest(nonzero(uid), nonzero(gid))?;
            bound(&[])?;
            keep_in_nested_namespace()?;
        }
        (Role::Proxy, Privilege::Root) => {
            bound(&[Capability::CAP_NET_ADMIN])?;
            prctl::set_keepcaps(true).map_err(LaunchError::confine("keep capabilities"))?;
            become_user(PROXY_UID, PROXY_UID)?;
            keep(&[Capability::CAP_NET_ADMIN])?;
        }
        (Role::Proxy, Privilege::Namespaced { .. }) => bound(&[Capability::CAP_NET_ADMIN])?,
        (Role::Control, Privilege::Root) => bound(&[Capability::CAP_DAC_READ_SEARCH])?,
        (Role::Control, Privilege::Namespaced { .. }) => bound(&[])?,
    }
    prctl::set_no_new_privs().map_err(LaunchError::confine("forbid new privileges"))
}

fn nonzero(id: u32) -> u32 {
    if id == 0 { APP_UID } else { id }
}

/// Limits what can ever be gained to `kept`. What user 0 executes has exactly these.
fn bound(kept: &[Capability]) -> Result<(), LaunchError> {
    let present = caps::read(None, CapSet::Bounding).map_err(capability_error)?;
    for capability in present.into_iter().filter(|capability| !kept.contains(capability)) {
        caps::drop(None, CapSet::Bounding, capability).map_err(capability_error)?;
    }
    Ok(())
}

/// Sets what this process, which is not user 0 any more, holds and passes on.
fn keep(kept: &[Capability]) -> Result<(), LaunchError> {
    let kept: CapsHashSet = kept.iter().copied().collect();
    caps::clear(None, CapSet::Ambient).map_err(capability_error)?;
    caps::set(None, CapSet::Effective, &kept).map_err(capability_error)?;
    caps::set(None, CapSet::Permitted, &kept).map_err(capability_error)?;
    caps::set(None, CapSet::Inheritable, &kept).map_err(capability_error)?;
    for capability in kept {
        caps::raise(None, CapSet::Ambient, capability).map_err(capability_error)?;
    }
    Ok(())
}

/// The user is not 0 in the nested namespace, so that executing a program drops the capabilities over it.
fn keep_in_nested_namespace() -> Result<(), LaunchError> {
    caps::clear(None, CapSet::Ambient).map_err(capability_error)?;
    caps::clear(None, CapSet::Inheritable).map_err(capability_error)
}

fn capability_error(error: caps::errors::CapsError) -> LaunchError {
    LaunchError::Confine { step: "set the capabilities".to_owned(), source: io::Error::other(error) }
}

fn become_user(uid: u32, gid: u32) -> Result<(), LaunchError> {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    setgroups(&[gid])
        .and_then(|()| setresgid(gid, gid, gid))
        .and_then(|()| setresuid(uid, uid, uid))
        .map_err(LaunchError::confine(format!("become user {uid}")))
}

/// Enters a user namespace of its own in which the only user is `uid`: nothing that the process can gain
/// there is power over the namespaces it came from.
fn nest(uid: u32, gid: u32) -> Result<(), LaunchError> {
    unshare(CloneFlags::CLONE_NEWUSER).map_err(LaunchError::confine("make a user namespace"))?;
    map_users((uid, 0), (gid, 0))
}

/// Fills the maps of the user namespace that this process has just made: pairs of (inside, outside).
pub(crate) fn map_users(user: (u32, u32), group: (u32, u32)) -> Result<(), LaunchError> {
    let write = |name: &str, text: String| {
        let path = PathBuf::from("/proc/self").join(name);
        fs::write(&path, text).map_err(failed("write", &path))
    };
    // Without root, groups can be mapped only once they can no longer be dropped (user_namespaces(7)).
    write("setgroups", "deny".to_owned())?;
    write("uid_map", format!("{} {} 1", user.0, user.1))?;
    write("gid_map", format!("{} {} 1", group.0, group.1))
}

/// The kernel's reason, when a step of the confinement failed with one.
pub(crate) fn errno(error: &LaunchError) -> Option<Errno> {
    match error {
        LaunchError::Confine { source, .. } => source.raw_os_error().map(Errno::from_raw),
        LaunchError::Spec(_) | LaunchError::Directory { .. } | LaunchError::Execute { .. } => None,
    }
}
