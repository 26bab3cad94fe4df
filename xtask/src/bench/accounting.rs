//! What a program has used, by the kernel's account of its processes (proc(5)).

use std::fs;

use anyhow::{Context as _, Result};
use nix::unistd::{SysconfVar, sysconf};

/// A process and those that it started.
fn family(pid: u32) -> Vec<u32> {
    let mut family = vec![pid];
    let Ok(entries) = fs::read_dir("/proc") else { return family };
    let processes = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    family.extend(processes.filter(|process| stat(*process).is_some_and(|stat| stat.parent == pid)));
    family
}

#[derive(Debug, PartialEq, Eq)]
struct Stat {
    parent: u32,
    ticks: u64,
}

fn stat(pid: u32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The name, in parentheses, may hold anything, so fields are counted from its end.
fn parse_stat(text: &str) -> Option<Stat> {
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |field: usize| fields.get(field).and_then(|field| field.parse::<u64>().ok());
    // Fields 4 (ppid), 14 (utime) and 15 (stime) of proc(5); the first here is field 3.
    Some(Stat { parent: u32::try_from(number(1)?).ok()?, ticks: number(11)? + number(12)? })
}

/// CPU time in microseconds that a program has used: all threads, living or ended, and its child processes.
///
/// # Errors
/// When it is gone.
pub(crate) fn cpu_us(pid: u32) -> Result<u64> {
    let per_second = sysconf(SysconfVar::CLK_TCK)?.context("the kernel names no clock tick")?;
    let per_tick = 1_000_000 / u64::try_from(per_second)?;
    let ticks: Option<Vec<u64>> = family(pid).into_iter().map(|pid| Some(stat(pid)?.ticks)).collect();
    Ok(ticks.with_context(|| format!("process {pid} is gone"))?.iter().sum::<u64>() * per_tick)
}

/// Resident memory in KiB: of one process its VmRSS; of a family each one's own pages and, once, those that
/// they share.
///
/// # Errors
/// When it is gone.
pub(crate) fn resident_kib(pid: u32) -> Result<u64> {
    let mut own = 0;
    let mut shared = 0;
    for pid in family(pid) {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))
            .with_context(|| format!("process {pid} is gone"))?;
        own += kib(&status, "RssAnon:");
        shared = shared.max(kib(&status, "RssFile:") + kib(&status, "RssShmem:"));
    }
    Ok(own + shared)
}

fn kib(status: &str, field: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_parentheses_shifts_nothing() {
        let text = "42 (a b) c) S 7 42 42 0 -1 4194560 1 0 0 0 123 45 0 0 20 0 1 0 5 0 0";
        assert_eq!(parse_stat(text), Some(Stat { parent: 7, ticks: 168 }));
    }

    #[test]
    fn memory_is_read_by_field() {
        let status = "VmRSS:\t 1000 kB\nRssAnon:\t  300 kB\nRssFile:\t  700 kB\n";
        assert_eq!(
            (kib(status, "RssAnon:"), kib(status, "RssFile:"), kib(status, "RssShmem:")),
            (300, 700, 0)
        );
    }

    #[test]
    fn this_process_uses_something() {
        assert!(resident_kib(std::process::id()).expect("this process") > 0);
    }
}
