//! Tests of the reader and the judge; those of the proposal are beside it.

mod judge;
mod read;
