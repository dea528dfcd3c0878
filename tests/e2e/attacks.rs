//! What others do to podsec; numbers as in docs/threats.md.

use crate::Test;

pub const TESTS: &[Test] = &[];
