//! A UDP forwarder whose far end can be changed or cut: a network between one dialler and a node.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::net::UdpSocket;

use crate::support::loopback;

/// Forwards between whoever sends to its address and the current target.
pub(crate) struct Proxy {
    address: SocketAddr,
    target: Arc<Mutex<Option<SocketAddr>>>,
}

impl Proxy {
    pub(crate) async fn to(target: SocketAddr) -> Self {
        let near = Arc::new(UdpSocket::bind(loopback()).await.expect("a free port"));
        let far = Arc::new(UdpSocket::bind(loopback()).await.expect("a free port"));
        let address = near.local_addr().expect("bound");
        let target = Arc::new(Mutex::new(Some(target)));
        let dialler = Arc::new(Mutex::new(None));

        let (from, to) = (Arc::clone(&near), Arc::clone(&far));
        let (seen, goal) = (Arc::clone(&dialler), Arc::clone(&target));
        tokio::spawn(async move {
            let mut buffer = vec![0; 65_536];
            while let Ok((len, source)) = from.recv_from(&mut buffer).await {
                *seen.lock().expect("not poisoned") = Some(source);
                let goal = *goal.lock().expect("not poisoned");
                if let Some(goal) = goal {
                    let _ = to.send_to(&buffer[..len], goal).await;
                }
            }
        });
        let goal = Arc::clone(&target);
        tokio::spawn(async move {
            let mut buffer = vec![0; 65_536];
            while let Ok((len, source)) = far.recv_from(&mut buffer).await {
                let is_current = *goal.lock().expect("not poisoned") == Some(source);
                let dialler = *dialler.lock().expect("not poisoned");
                if let Some(dialler) = dialler
                    && is_current
                {
                    let _ = near.send_to(&buffer[..len], dialler).await;
                }
            }
        });
        Self { address, target }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Forwards to another target from now on, or with `None` to nobody.
    pub(crate) fn lead_to(&self, target: Option<SocketAddr>) {
        *self.target.lock().expect("not poisoned") = target;
    }
}
