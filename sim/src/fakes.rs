//! The fakes outside the simulator's loop: for tests that ask them and the real services the same questions.
//!
//! Nothing is decided here. Each type below is a handle on the very fake that the simulator runs, with the client's side
//! (which session, which connection) kept as plainly as a test needs it, and time left to the test: a session ends, a
//! lock wait times out and a client hangs up when it says so.

pub mod coordination;
pub mod source;
pub mod sql;
