//! Headers as typed views, and their checksums.
#![deny(unsafe_code)]

pub mod checksum;
