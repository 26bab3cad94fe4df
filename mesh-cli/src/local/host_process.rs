//! A process of the machine, known by its number and the moment of its start.
//!
//! Numbers are used again, so that a number alone could name a stranger's process; together with the start
//! it cannot. Nothing here ever signals a process without checking both.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// A process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HostProcess {
    /// Its number, in the PID namespace of who reads this.
    pub(crate) pid: i32,
    /// Its start, in clock ticks since the machine started (field 22 of `/proc/PID/stat`, proc(5)).
    pub(crate) start_ticks: u64,
}

impl HostProcess {
    /// The process that has this number now.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn find(pid: i32) -> io::Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let start_ticks = field(&stat, 22).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { pid, start_ticks })
    }

    /// Whether it still runs. A process that has ended and was not yet reaped does not.
    pub(crate) fn is_alive(self) -> bool {
        let Ok(stat) = fs::read_to_string(format!("/proc/{}/stat", self.pid)) else { return false };
        let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        field(&stat, 22) == Some(self.start_ticks) && !matches!(state, Some('Z' | 'X') | None)
    }

    /// Sends a signal, unless it has ended.
    ///
    /// # Errors
    /// When that is not permitted.
    pub(crate) fn signal(self, signal: Signal) -> Result<(), Errno> {
        if !self.is_alive() {
            return Ok(());
        }
        match kill(Pid::from_raw(self.pid), signal) {
            Err(Errno::ESRCH) => Ok(()),
            other => other,
        }
    }

    /// Numbers, as this process sees them, of the processes in the PID namespace of this one, by the numbers
    /// that they have there. Processes that may not be looked at are left out.
    pub(crate) fn namespace_members(self) -> BTreeMap<i32, i32> {
        let namespace = |pid: &str| fs::read_link(Path::new("/proc").join(pid).join("ns/pid")).ok();
        let Some(own) = namespace(&self.pid.to_string()) else { return BTreeMap::new() };
        let Ok(entries) = fs::read_dir("/proc") else { return BTreeMap::new() };
        let mut members = BTreeMap::new();
        for entry in entries.flatten() {
            let name = entry.file_name();
            let Some(outer) = name.to_str().filter(|name| name.bytes().all(|b| b.is_ascii_digit())) else {
                continue;
            };
            if namespace(outer).as_ref() != Some(&own) {
                continue;
            }
            let status = fs::read_to_string(entry.path().join("status")).unwrap_or_default();
            let inner = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
            let inner = inner.and_then(|numbers| numbers.split_whitespace().last()?.parse().ok());
            if let (Some(inner), Ok(outer)) = (inner, outer.parse()) {
                members.insert(inner, outer);
            }
        }
        members
    }
}

/// Field `number` (from 1) of `/proc/PID/stat`. The second is the program's name in parentheses, which may
/// itself hold spaces and parentheses.
fn field(stat: &str, number: usize) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(") ")?;
    after_name.split(' ').nth(number.checked_sub(3)?)?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_is_found_behind_any_name() {
        let fields: Vec<String> = (4..=30).map(|number| number.to_string()).collect();
        let stat = format!("77 (a) S (b)) R {}", fields.join(" "));
        assert_eq!(field(&stat, 22), Some(22));
        assert_eq!(field("77", 22), None);
    }

    #[test]
    fn a_process_is_alive_until_it_ends_and_its_successor_is_not_it() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("a process");
        let process = HostProcess::find(i32::try_from(child.id()).expect("a number")).expect("it runs");
        assert!(process.is_alive());
        assert!(!HostProcess { start_ticks: process.start_ticks + 1, ..process }.is_alive());
        process.signal(Signal::SIGKILL).expect("own process");
        child.wait().expect("it ends");
        assert!(!process.is_alive());
        process.signal(Signal::SIGKILL).expect("a process that has ended needs no signal");
    }

    #[test]
    fn members_of_the_own_namespace_include_this_process() {
        let own = i32::try_from(std::process::id()).expect("a number");
        let members = HostProcess::find(own).expect("it runs").namespace_members();
        assert_eq!(members.get(&own), Some(&own));
    }
}
