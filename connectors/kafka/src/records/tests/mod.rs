//! The decoder against an encoder that shares nothing with it, against damage, and against bombs.

mod codecs;
mod equal;
mod hostile;
mod made;
mod transactions;
