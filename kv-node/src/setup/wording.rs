//! What may be a member's name, zone and address.

use std::net::IpAddr;

use anyhow::{Result, ensure};

/// Checks a name or a zone: it stands in tables and in lists with commas.
///
/// # Errors
/// What is wrong with it.
pub fn check_name(what: &str, name: &str) -> Result<()> {
    let is_good = |letter: char| letter.is_alphanumeric() || "-_.:/".contains(letter);
    ensure!(
        !name.is_empty() && name.len() <= 64 && name.chars().all(is_good),
        "`{}` is no {what}: 1 to 64 letters, digits, and - _ . : /",
        name.escape_debug()
    );
    Ok(())
}

/// Checks an address under which other nodes are to reach one.
///
/// # Errors
/// What is wrong with it.
pub fn check_address(address: &str) -> Result<()> {
    let parts = address.rsplit_once(':');
    let port = parts.and_then(|(_, port)| port.parse::<u16>().ok());
    let host = parts.map_or("", |(host, _)| host);
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let is_host = !bare.is_empty()
        && host
            .chars()
            .all(|letter| letter.is_ascii_alphanumeric() || "-_.:[]%".contains(letter));
    ensure!(
        is_host && port.is_some_and(|port| port > 0),
        "`{}` is no address: give HOST:PORT, where the other nodes reach this one",
        address.escape_debug()
    );
    let is_anywhere = bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified());
    ensure!(
        !is_anywhere,
        "`{address}` is where a node may listen, not where others reach it: give --address HOST:PORT"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_a_host_and_a_port_that_others_can_reach() {
        for good in ["127.0.0.1:7401", "[::1]:7401", "n1.example:1", "n1:65535"] {
            check_address(good).expect(good);
        }
        let bad = [
            "127.0.0.1",
            ":7505",
            "127.0.0.1:0",
            "127.0.0.1:99999",
            "0.0.0.0:7505",
            "[::]:7401",
            "a,b:1",
            "",
            "n 1:2",
            "n1:",
        ];
        for bad in bad {
            assert!(check_address(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_stand_in_a_table() {
        for good in ["n1", "rack-7", "eu/a", "Zürich"] {
            check_name("zone", good).expect(good);
        }
        for bad in ["", " ", "a,b", "a\nb", "a b", "$(x)"] {
            assert!(check_name("name", bad).is_err(), "{bad}");
        }
    }
}
