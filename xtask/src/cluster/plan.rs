//! What a cluster shall look like: nodes, zones, addresses. Pure; ports are checked elsewhere.

use crate::arguments::{BasePort, UpArguments};
use crate::failure::Failure;
use anyhow::Result;
use std::net::{Ipv4Addr, SocketAddr};

/// Where ports begin when nothing else is asked for.
pub(crate) const DEFAULT_BASE_PORT: u16 = 7401;
const DEFAULT_NODES: u16 = 3;
const DEFAULT_REPLICAS: u16 = 3;

/// The shape of a cluster: these four numbers decide everything about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Plan {
    nodes: u16,
    zones: u16,
    replicas: u16,
    base_port: u16,
}

/// One node of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PlannedNode {
    /// `n1`, `n2` ..
    pub(crate) name: String,
    /// `a`, `b` ..
    pub(crate) zone: String,
    /// On loopback.
    pub(crate) address: SocketAddr,
}

impl Plan {
    /// Fills in what the user left out; `free_base` is asked for a base port when it shall be found.
    ///
    /// # Errors
    /// When the numbers contradict each other.
    pub(crate) fn new(
        asked: &UpArguments,
        free_base: impl FnOnce(u16) -> Option<u16>,
    ) -> Result<Self> {
        let nodes = asked.nodes.unwrap_or(DEFAULT_NODES);
        let replicas = asked.replicas.unwrap_or(DEFAULT_REPLICAS.min(nodes));
        let zones = asked.zones.unwrap_or(replicas);
        if replicas > nodes {
            return Err(Failure::usage(format!(
                "{replicas} replicas need at least as many nodes, got {nodes}; use --nodes {replicas} or --replicas {nodes}"
            )));
        }
        if zones > nodes {
            return Err(Failure::usage(format!(
                "{zones} zones need at least as many nodes, got {nodes}; use --zones {nodes}"
            )));
        }
        let base_port = match asked.base_port {
            Some(BasePort::Fixed(port)) => port,
            None => DEFAULT_BASE_PORT,
            Some(BasePort::Auto) => free_base(nodes).ok_or_else(|| {
                Failure::usage(format!("found no {nodes} free UDP ports in a row"))
            })?,
        };
        Self::checked(nodes, zones, replicas, base_port)
    }

    fn checked(nodes: u16, zones: u16, replicas: u16, base_port: u16) -> Result<Self> {
        if base_port.checked_add(nodes - 1).is_none() {
            return Err(Failure::usage(format!(
                "{nodes} ports from {base_port} on end beyond 65535; use a lower --base-port"
            )));
        }
        Ok(Self {
            nodes,
            zones,
            replicas,
            base_port,
        })
    }

    /// Number of copies of every record.
    pub(crate) fn replicas(&self) -> u16 {
        self.replicas
    }

    /// Number of zones.
    pub(crate) fn zones(&self) -> u16 {
        self.zones
    }

    /// Port of the first node.
    pub(crate) fn base_port(&self) -> u16 {
        self.base_port
    }

    /// The nodes, in order of their names and ports.
    pub(crate) fn nodes(&self) -> Vec<PlannedNode> {
        (0..self.nodes)
            .map(|index| PlannedNode {
                name: format!("n{}", index + 1),
                zone: zone_name(index % self.zones),
                address: SocketAddr::from((Ipv4Addr::LOCALHOST, self.base_port + index)),
            })
            .collect()
    }
}

fn zone_name(index: u16) -> String {
    const NAMES: &str = "abcdefghijklmnopqrstuvwxyz";
    NAMES
        .chars()
        .nth(index.into())
        .map_or_else(|| format!("z{index}"), String::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(nodes: u16, zones: Option<u16>, replicas: Option<u16>) -> UpArguments {
        UpArguments {
            nodes: Some(nodes),
            zones,
            replicas,
            ..UpArguments::default()
        }
    }

    fn none_free(_: u16) -> Option<u16> {
        None
    }

    #[test]
    fn defaults_are_three_nodes_in_three_zones() {
        let plan = Plan::new(&UpArguments::default(), none_free).unwrap();
        let nodes: Vec<String> = plan
            .nodes()
            .iter()
            .map(|node| format!("{} {} {}", node.name, node.zone, node.address))
            .collect();
        assert_eq!(plan.replicas(), 3);
        assert_eq!(
            nodes,
            [
                "n1 a 127.0.0.1:7401",
                "n2 b 127.0.0.1:7402",
                "n3 c 127.0.0.1:7403"
            ]
        );
    }

    #[test]
    fn zones_are_dealt_in_turn() {
        let plan = Plan::new(&asked(5, Some(3), None), none_free).unwrap();
        let zones: Vec<String> = plan.nodes().into_iter().map(|node| node.zone).collect();
        assert_eq!(zones, ["a", "b", "c", "a", "b"]);
    }

    #[test]
    fn one_node_gets_one_replica_in_one_zone() {
        let plan = Plan::new(&asked(1, None, None), none_free).unwrap();
        assert_eq!((plan.replicas(), plan.zones()), (1, 1));
    }

    #[test]
    fn contradictions_say_what_to_do() {
        let cases = [
            (asked(2, None, Some(3)), "use --nodes 3 or --replicas 2"),
            (asked(2, Some(3), Some(2)), "use --zones 2"),
            (
                UpArguments {
                    base_port: Some(BasePort::Fixed(65_534)),
                    ..asked(3, None, None)
                },
                "use a lower --base-port",
            ),
            (
                UpArguments {
                    base_port: Some(BasePort::Auto),
                    ..asked(3, None, None)
                },
                "found no 3 free UDP ports",
            ),
        ];
        for (asked, expected) in cases {
            let error = Plan::new(&asked, none_free).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        }
    }

    #[test]
    fn auto_takes_the_base_that_was_found() {
        let asked = UpArguments {
            base_port: Some(BasePort::Auto),
            ..UpArguments::default()
        };
        let plan = Plan::new(&asked, |count| Some(8000 + count)).unwrap();
        assert_eq!(plan.base_port(), 8003);
    }
}
