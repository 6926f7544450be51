//! Answers that are lost, listeners that are taken for dead, stores that fail.
