//! What is found without a packet.

use super::Context;
use crate::Finding;

/// Adds what is found in objects and rules alone.
pub(super) fn add(_: &Context<'_, '_>, _: &mut Vec<Finding>) {}
