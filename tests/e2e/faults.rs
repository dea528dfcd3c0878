//! What breaks: processes, disks, limits.

use crate::Test;

pub const TESTS: &[Test] = &[];
