//! The limits of a payload.

/// Maximum of updates in one payload.
pub const MAX_UPDATES: usize = 16_384;

/// Maximum length of a publisher's id, in bytes.
pub const MAX_ID_BYTES: usize = 255;

/// Maximum length of an action's word, in bytes.
pub const MAX_ACTION_BYTES: usize = 255;

/// Maximum depth of arrays and maps in a value or in a skipped field.
pub(super) const MAX_DEPTH: usize = 32;
