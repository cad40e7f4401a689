//! Sockets: made, waited for, and read with what the kernel tells besides data.

pub mod control;
pub mod listener;
pub mod make;
pub mod message;
pub mod refusal;
pub mod signals;
pub mod stream;
pub mod worker;
