//! Kubernetes objects.

pub mod kubernetes;
