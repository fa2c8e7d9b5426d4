//! The append-only record of everything that was sequenced.
