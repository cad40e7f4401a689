//! The scenarios that come with the lab.

/// Names and texts, in the order in which they are listed.
pub const BUILTIN: &[(&str, &str)] =
    &[("canal-unused-pool", include_str!("../../scenarios/canal-unused-pool.yaml"))];

/// The text of a scenario by its name.
pub fn builtin(name: &str) -> Option<&'static str> {
    BUILTIN.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}
