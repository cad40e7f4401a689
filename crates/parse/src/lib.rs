//! Reads what nodes print into the model: iptables-save, nft (JSON and text), ipset save,
//! iproute2 JSON.
//!
//! Text in, `(model, diagnostics)` out; no I/O. Parsing never fails as a whole: what is not
//! understood is kept as `Opaque`, a malformed line costs that line and is reported with its
//! position.

pub mod capture;
pub mod iproute;
pub mod ipset;
pub mod iptables;
pub mod nft;
pub mod sysctl;
