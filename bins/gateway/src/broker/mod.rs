//! One thread between the lanes and the journal.
