//! Who holds a UDP port: found before anything is started, so that the message can name the owner.

use std::fmt;
use std::fs;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;

/// Longest command line shown for an owner.
const COMMAND_WIDTH: usize = 120;

/// A port that a node wanted and somebody else has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Taken {
    /// The address that could not be bound.
    pub(crate) address: SocketAddr,
    /// Who has it, when `/proc` shows it.
    pub(crate) owner: Owner,
}

/// What is known about the process that holds a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Owner {
    /// A process of ours, or we are root.
    Process {
        /// Its pid.
        pid: u32,
        /// Its command line, shortened.
        command: String,
    },
    /// Its open files are hidden from us, but the socket names its user.
    User {
        /// The user's id.
        uid: u32,
    },
    /// The kernel says the port is taken and `/proc` does not say by whom.
    Unknown,
}

impl fmt::Display for Owner {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process { pid, command } => write!(formatter, "pid {pid} \"{command}\""),
            Self::User { uid } => write!(formatter, "a process of user id {uid}"),
            Self::Unknown => formatter.write_str("a process that /proc does not show"),
        }
    }
}

/// Whether an address can be bound, and by whom it is held when not.
///
/// # Errors
/// When binding fails for another reason than that it is taken.
pub(crate) fn check(address: SocketAddr) -> io::Result<Result<(), Taken>> {
    // Binding is the truth; the table in /proc only adds the name.
    match UdpSocket::bind(address) {
        Ok(_) => Ok(Ok(())),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(Err(Taken {
            address,
            owner: owner(address.port()),
        })),
        Err(error) => Err(error),
    }
}

/// The first base port from `start` on, in steps of `step`, with `count` free ports in a row.
///
/// Ports in `reserved` count as taken: they belong to clusters that are down at the moment.
pub(crate) fn free_base(start: u16, step: u16, count: u16, reserved: &[u16]) -> Option<u16> {
    let mut base = start;
    loop {
        let last = base.checked_add(count.checked_sub(1)?)?;
        let is_free =
            |port: u16| !reserved.contains(&port) && UdpSocket::bind(("127.0.0.1", port)).is_ok();
        if (base..=last).all(is_free) {
            return Some(base);
        }
        base = base.checked_add(step)?;
    }
}

fn owner(port: u16) -> Owner {
    let sockets: Vec<UdpEntry> = ["/proc/net/udp", "/proc/net/udp6"]
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .flat_map(|text| parse_table(&text))
        .filter(|entry| entry.port == port)
        .collect();
    let process = sockets
        .iter()
        .find_map(|entry| holder(entry.inode, Path::new("/proc")));
    match (process, sockets.first()) {
        (Some(pid), _) => Owner::Process {
            pid,
            command: command(pid),
        },
        (None, Some(entry)) => Owner::User { uid: entry.uid },
        (None, None) => Owner::Unknown,
    }
}

/// One line of `/proc/net/udp`.
#[derive(Debug, PartialEq, Eq)]
struct UdpEntry {
    port: u16,
    uid: u32,
    inode: u64,
}

/// The sockets of a table; lines of another form (the heading) are passed over.
fn parse_table(text: &str) -> Vec<UdpEntry> {
    text.lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<UdpEntry> {
    // `sl local remote state queues timer retransmits uid timeout inode ..`; numbers of `local` are hex.
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let (_, port) = fields.get(1)?.rsplit_once(':')?;
    Some(UdpEntry {
        port: u16::from_str_radix(port, 16).ok()?,
        uid: fields.get(7)?.parse().ok()?,
        inode: fields.get(9)?.parse().ok()?,
    })
}

/// The process that has the socket with this inode open, looked up below `proc`.
fn holder(inode: u64, proc: &Path) -> Option<u32> {
    let wanted = format!("socket:[{inode}]");
    let processes = fs::read_dir(proc).ok()?.flatten();
    processes
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .find(|pid| {
            let open_files = fs::read_dir(proc.join(pid.to_string()).join("fd"));
            open_files.is_ok_and(|files| {
                files.flatten().any(|file| {
                    fs::read_link(file.path()).is_ok_and(|to| to.as_os_str() == wanted.as_str())
                })
            })
        })
}

fn command(pid: u32) -> String {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    shorten(&String::from_utf8_lossy(&line))
}

fn shorten(command: &str) -> String {
    // The kernel separates arguments by NUL; an argument may also hold line breaks of its own.
    let command = command.replace(|letter: char| letter.is_control(), " ");
    let command = command.trim();
    if command.chars().count() <= COMMAND_WIDTH {
        return command.to_owned();
    }
    let head: String = command.chars().take(COMMAND_WIDTH - 1).collect();
    format!("{head}…")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
  661: 0100007F:1CE9 00000000:0000 07 00000000:00000000 00:00000000 00000000  1000        0 55012 2 0000000000000000 0
  662: 00000000:0044 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 18000 2 0000000000000000 3
";
    const TABLE_V6: &str = "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
   12: 00000000000000000000000001000000:1CEB 00000000000000000000000000000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 77001 2 0000000000000000 0
";

    #[test]
    fn tables_of_both_families_are_read() {
        let found: Vec<(u16, u32, u64)> = [TABLE, TABLE_V6]
            .iter()
            .flat_map(|text| parse_table(text))
            .map(|entry| (entry.port, entry.uid, entry.inode))
            .collect();
        assert_eq!(
            found,
            [(7401, 1000, 55012), (68, 0, 18000), (7403, 0, 77001)]
        );
    }

    #[test]
    fn garbage_in_the_table_is_passed_over() {
        assert_eq!(parse_table("\n1: x\n1: 00:ZZ a b c d e f g h\n"), []);
    }

    #[test]
    fn taken_port_is_named_with_its_owner() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let taken = check(address).unwrap().unwrap_err();
        assert_eq!(taken.address, address);
        let Owner::Process { pid, command } = taken.owner else {
            panic!("no owner for {address}");
        };
        assert_eq!(pid, std::process::id());
        assert!(command.contains("xtask"), "{command}");
    }

    #[test]
    fn free_port_is_free() {
        // Port 0 is any free one. A port just given back may still be held for a moment, by a child
        // that another test has forked and that has not yet become its program.
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        assert_eq!(check(any).unwrap(), Ok(()));
    }

    #[test]
    fn free_base_steps_over_taken_and_reserved_ports() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let taken = socket.local_addr().unwrap().port();
        let base = free_base(taken, 3, 2, &[taken.wrapping_add(4)]);
        assert!(
            base.is_none_or(|base| base >= taken.saturating_add(6)),
            "{base:?}"
        );
        assert_eq!(free_base(65_530, 10, 20, &[]), None, "ports end at 65535");
    }

    #[test]
    fn long_commands_are_cut() {
        assert_eq!(shorten("sh\0-c\0a\nb\0"), "sh -c a b");
        assert_eq!(shorten(&"x".repeat(200)).chars().count(), COMMAND_WIDTH);
    }

    #[test]
    fn owner_reads_as_a_sentence() {
        let process = Owner::Process {
            pid: 991,
            command: "kv-node serve".into(),
        };
        assert_eq!(process.to_string(), "pid 991 \"kv-node serve\"");
        assert_eq!(Owner::User { uid: 7 }.to_string(), "a process of user id 7");
    }
}
