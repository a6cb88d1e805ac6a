//! What the XDP program counted.

/// Frames by what became of them, in the order of `enum counter` in `bpf/steer.bpf.c`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Steered {
    /// Redirected to a stack.
    pub redirected: u64,
    /// Passed and recorded, because their flow was about to be promoted.
    pub watched: u64,
    /// TCP segments of flows that no stack owns.
    pub missed: u64,
    /// Not a TCP segment that a stack could own.
    pub not_ours: u64,
}

impl Steered {
    /// Cells of the counter map.
    pub const CELLS: usize = 4;

    /// From the map's cells.
    pub fn from_cells(cells: [u64; Self::CELLS]) -> Self {
        let [redirected, watched, missed, not_ours] = cells;
        Self { redirected, watched, missed, not_ours }
    }
}
