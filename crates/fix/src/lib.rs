//! Remedies as steps on a cluster.
mod manifests;
mod transplant;
pub use manifests::{Manifests, ObjectName, merge};
pub use transplant::{Strange, transplant};
mod owner;
pub use owner::{Reaction, Reactions, Unforeseen, react, restart};
pub mod deed;
