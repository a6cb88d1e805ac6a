//! Two engines, a virtual clock and a bad link between them.
#![deny(unsafe_code)]
