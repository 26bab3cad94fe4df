//! The packets that leave and enter a workload, recorded by tcpdump outside of everything that is tested.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::local_mesh::LocalMesh;
use crate::machine::signal;

/// Length of the header of a file, and of that of each packet in it (the classic format, `pcap-savefile(5)`).
const FILE_HEADER: usize = 24;
const PACKET_HEADER: usize = 16;
/// Length of an Ethernet header; its last two bytes name the protocol.
const ETHERNET_HEADER: usize = 14;
/// Number of TCP in IP headers (RFC 9293).
const TCP: u8 = 6;

/// A recording that runs.
#[derive(Debug)]
pub struct Recording {
    tcpdump: Child,
    file: PathBuf,
}

/// The payload of one TCP segment; segments without one are left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Address of the sender.
    pub source: IpAddr,
    /// Address of the receiver.
    pub destination: IpAddr,
    /// Port of the sender.
    pub source_port: u16,
    /// Port of the receiver.
    pub destination_port: u16,
    /// What it carries.
    pub payload: Vec<u8>,
}

impl Recording {
    /// Starts to record what passes the workload's link. Needs root.
    ///
    /// # Panics
    /// When tcpdump cannot be started.
    #[track_caller]
    pub fn of_workload(mesh: &LocalMesh, name: &str) -> Self {
        let pid = mesh.pid(name, "pid").to_string();
        let mut command = Command::new("nsenter");
        command.args(["-t", &pid, "-n", "tcpdump", "-i", "eth0"]);
        Self::start(command, mesh.path(&format!("scratch/{name}.pcap")), "tcp")
    }

    /// Starts to record what matches `filter` on the machine's own links, whichever they are. Needs root.
    ///
    /// # Panics
    /// When tcpdump cannot be started.
    #[track_caller]
    pub fn of_machine(mesh: &LocalMesh, filter: &str) -> Self {
        let mut command = Command::new("tcpdump");
        command.args(["-i", "any"]);
        Self::start(command, mesh.path("scratch/machine.pcap"), filter)
    }

    #[track_caller]
    fn start(mut command: Command, file: PathBuf, filter: &str) -> Self {
        // -Z: it would give up root, and with it the right to write here.
        command
            .args(["-Z", "root", "-n", "-U", "--immediate-mode", "-s0", "-B", "16384", "-w"])
            .arg(&file)
            .arg(filter);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut tcpdump = command.spawn().expect("tcpdump runs");
        let mut said = String::new();
        let mut lines = BufReader::new(tcpdump.stderr.take().expect("a pipe"));
        while !said.contains("listening on") {
            let read = lines.read_line(&mut said).expect("a line");
            assert!(read > 0, "tcpdump ended: {said}");
        }
        // Closing the pipe would end it at its last words.
        tcpdump.stderr = Some(lines.into_inner());
        Self { tcpdump, file }
    }

    /// Ends it and returns the bytes of the file.
    ///
    /// # Panics
    /// When tcpdump ends with an error.
    #[track_caller]
    pub fn end(mut self) -> Vec<u8> {
        signal("INT", i32::try_from(self.tcpdump.id()).expect("a number of a process"));
        let status = self.tcpdump.wait().expect("an end");
        assert!(status.success(), "tcpdump: {status}");
        fs::read(&self.file).expect("a recording")
    }

    /// Ends it and returns what TCP carried.
    ///
    /// # Panics
    /// When the file is not what it should be.
    #[track_caller]
    pub fn segments(self) -> Vec<Segment> {
        packets(&self.end()).into_iter().filter_map(segment).collect()
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        // It has ended already unless the test failed before.
        drop(self.tcpdump.kill());
        drop(self.tcpdump.wait());
    }
}

impl Recording {
    /// Packets in the bytes of a file.
    ///
    /// # Panics
    /// When a packet is cut off.
    pub fn count(file: &[u8]) -> usize {
        packets(file).len()
    }
}

fn packets(file: &[u8]) -> Vec<&[u8]> {
    assert!(file.len() >= FILE_HEADER, "a recording has a header");
    let mut rest = &file[FILE_HEADER..];
    let mut found = Vec::new();
    while let Some((header, after)) = rest.split_at_checked(PACKET_HEADER) {
        let length = u32::from_le_bytes([header[8], header[9], header[10], header[11]]);
        let (packet, after) = after.split_at(usize::try_from(length).expect("a length"));
        found.push(packet);
        rest = after;
    }
    found
}

/// The TCP payload of an Ethernet frame, when there is one.
fn segment(frame: &[u8]) -> Option<Segment> {
    let ip = frame.get(ETHERNET_HEADER..)?;
    let (source, destination, protocol, tcp) = match frame.get(12..ETHERNET_HEADER)? {
        [0x08, 0x00] => {
            let address = |at: usize| <[u8; 4]>::try_from(ip.get(at..at + 4)?).ok().map(IpAddr::from);
            let header = usize::from(ip.first()? & 0x0f) * 4;
            let total = usize::from(u16::from_be_bytes([*ip.get(2)?, *ip.get(3)?]));
            (address(12)?, address(16)?, *ip.get(9)?, ip.get(header..total.min(ip.len()))?)
        }
        [0x86, 0xdd] => {
            let address = |at: usize| <[u8; 16]>::try_from(ip.get(at..at + 16)?).ok().map(IpAddr::from);
            let total = 40 + usize::from(u16::from_be_bytes([*ip.get(4)?, *ip.get(5)?]));
            (address(8)?, address(24)?, *ip.get(6)?, ip.get(40..total.min(ip.len()))?)
        }
        _ => return None,
    };
    let port = |at: usize| Some(u16::from_be_bytes([*tcp.get(at)?, *tcp.get(at + 1)?]));
    let payload = tcp.get(usize::from(tcp.get(12)? >> 4) * 4..)?.to_vec();
    let found = Segment { source, destination, source_port: port(0)?, destination_port: port(2)?, payload };
    (protocol == TCP && !found.payload.is_empty()).then_some(found)
}
