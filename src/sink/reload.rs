//! What came of a reload, as those who asked for it are told: `{"reloaded": [...]}`, `{"rejected": [...]}` or
//! `{"failed": "..."}`, one line.

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

/// More problems than this make neither a record nor an answer any clearer; `flowctl check` names them all.
pub const PROBLEMS_MAX: usize = 50;

/// What a reading of the configuration came to that began after it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reloaded {
    /// The new one is in force; what changed.
    Reloaded(Vec<String>),
    /// The old one stays in force; the problems of the new one, and where they are more than `PROBLEMS_MAX`, how many more.
    Rejected(Vec<String>),
    /// The old one stays in force, and not because of what the new one says; why.
    Failed(String),
}

/// The same, and from which report on it shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// What is told.
    pub reloaded: Reloaded,
    /// Of the first report that shows it.
    pub sequence: u64,
}

/// Where the daemon says what came of it. Dropped, it says that the daemon ends.
pub type Asker = oneshot::Sender<Outcome>;
