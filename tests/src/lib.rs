//! The lab: two network namespaces joined by veth.
