//! Gives back the space of buckets that were dropped.

use std::sync::Arc;
use std::time::Duration;

use crate::anti_entropy::trees::Trees;
use crate::env::Env;
use crate::replica::Replica;
use crate::topologies::Topologies;

/// How often it is looked for dropped buckets. Nobody can reach what is in them meanwhile.
const PERIOD: Duration = Duration::from_secs(5);

/// The task that deletes what is in dropped buckets. What a write that was under way then leaves behind goes after the
/// next start.
#[derive(Debug)]
pub struct Reaper {
    pub(crate) env: Env,
    pub(crate) topologies: Arc<Topologies>,
    pub(crate) trees: Arc<Trees>,
    pub(crate) replica: Arc<Replica>,
}

impl Reaper {
    /// Looks as long as the node runs.
    pub async fn run(self) {
        loop {
            self.env.sleep(PERIOD).await;
            let topology = self.topologies.current();
            for bucket in self.trees.buckets() {
                if !topology.has_dropped(bucket) {
                    continue;
                }
                match self.replica.delete_bucket(bucket).await {
                    Ok(()) => {
                        self.trees.forget(bucket);
                        tracing::info!(
                            bucket = bucket.0,
                            "what was in a dropped bucket is deleted"
                        );
                    }
                    Err(refusal) => {
                        tracing::warn!(bucket = bucket.0, %refusal, "a dropped bucket is not deleted yet");
                    }
                }
            }
        }
    }
}
