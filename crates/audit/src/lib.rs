//! Whose rule it is.
