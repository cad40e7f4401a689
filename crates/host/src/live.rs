//! The state of the node that this runs on.

use unmasq_parse::capture::{CaptureError, Node};

use crate::collect::{self, Options, Step};

/// A node as it is now.
#[derive(Debug, Clone)]
pub struct Live {
    /// Its state.
    pub node: Node,
    /// What was done to learn it.
    pub report: Vec<Step>,
}

/// Why a node's state could not be had.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    /// Nothing could be collected.
    #[error(transparent)]
    Collect(#[from] collect::Error),
    /// What was collected is no capture.
    #[error("what was collected can't be read: {0}")]
    Capture(#[from] CaptureError),
    /// What was collected has another node.
    #[error("what was collected has no node {0}")]
    NoNode(String),
}

/// Collects in memory, and parses.
pub fn live(options: &Options) -> Result<Live, LiveError> {
    let collected = collect::collect(options)?;
    let capture = unmasq_parse::capture::parse(&collected.files)?;
    let node = capture.node(&collected.node).ok_or(LiveError::NoNode(collected.node))?;
    Ok(Live { node, report: collected.report })
}
