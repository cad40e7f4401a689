//! Tests of the reader, the judge and the proposal.

mod judge;
mod propose;
mod read;
