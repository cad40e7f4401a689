//! Terminal and JSON views of an answer.
