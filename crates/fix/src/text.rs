//! nft's text as a table.

use unmasq_model::origin::{Diagnostic, FileId, Origin};
use unmasq_model::ruleset::Table;

/// Not read yet.
pub(crate) fn parse(_: &str, file: FileId) -> (Vec<Table>, Vec<Diagnostic>) {
    let message = "nft's text is not read yet".to_owned();
    (Vec::new(), vec![Diagnostic { origin: Origin::new(file, 1), message }])
}
