//! What the author of a set of objects probably did not mean.
