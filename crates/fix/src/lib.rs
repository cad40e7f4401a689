//! Remedies as deeds on a cluster, tried out before anybody does them.
//!
//! ```text
//!  Audit ─ remedy ─▶ deeds ─ State::after ─▶ Audit ─▶ Plan: what changes, or Refusal: why not
//!                                │
//!                                └ what the owners of rules then do by themselves
//! ```
//!
//! In: a cluster with its objects' files, an audit of it, and which findings to mend. Out: a
//! [`Plan`], whose [`Deed`](deed::Deed)s somebody else does, or a [`Refusal`]. Nothing is changed
//! here, and nothing is guessed: what an owner will do and can't be foretold is a refusal too.

mod absent;
pub mod connections;
pub mod deed;
mod deeds;
mod difference;
pub mod file;
mod manifests;
mod owner;
mod plan;
mod reboot;
mod revealed;
mod state;
pub mod transaction;
mod transplant;
mod worse;

pub use difference::{Difference, SettingChange, difference};
pub use manifests::{Manifests, ObjectName, merge};
pub use owner::{Reaction, Reactions, Unforeseen};
pub use plan::{By, FindingName, Mended, Passed, Plan, Refusal, Step, Unmet, Wanted, plan};
pub use revealed::{Revealed, RevealedPods};
pub use state::{DraftError, State};
pub use transplant::Strange;
pub use worse::Worse;
