//! stub
/// A parsed block.
pub struct Block;
