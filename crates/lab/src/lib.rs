//! Networks in namespaces, real rules, real packets.
