//! Runs commands on a node, reads and writes captures.
