//! AF_XDP: sockets that hand frames of one interface queue to user space and back.
//!
//! The privileged half (`socket`) makes and binds sockets; the other half (`queue`) maps the rings of a finished socket and needs
//! no privilege. `ring` is the cursor arithmetic, `umem` the accounting of frames. Packet format and rules:
//! Documentation/networking/af_xdp.rst of the kernel.

pub mod abi;
mod mapping;
pub mod memory;
pub mod queue;
pub mod ring;
pub mod socket;
pub mod umem;

pub use abi::Desc;
pub use queue::Queue;
pub use socket::{BindMode, RingSizes};
pub use umem::FramePool;
